/** Tests of the event parser: whole events whatever the pieces. */
import { expect, test } from 'vitest';

import { SseParser, readEvents, type ServerEvent } from './sse';

const STREAM =
  ': hello\n\nevent: started\nid: 1-0\ndata: {"attempt":1}\n\nevent: output\nid: 1-6\ndata: line\ndata: two\n\n';
const EVENTS: ServerEvent[] = [
  { event: 'started', id: '1-0', data: '{"attempt":1}' },
  { event: 'output', id: '1-6', data: 'line\ntwo' },
];

function parse(pieces: string[]): ServerEvent[] {
  let parser = new SseParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

test('events are whole whatever the pieces they arrive in', () => {
  expect(parse([STREAM])).toEqual(EVENTS);
  expect(parse([...STREAM])).toEqual(EVENTS);
  expect(parse([STREAM.slice(0, 30), STREAM.slice(30)])).toEqual(EVENTS);
});

test('every kind of line end is understood, also when it is cut in two', () => {
  expect(parse([STREAM.replaceAll('\n', '\r\n')])).toEqual(EVENTS);
  expect(parse([...STREAM.replaceAll('\n', '\r\n')])).toEqual(EVENTS);
});

test('keep-alive comments and unfinished events give nothing', () => {
  expect(parse([': keep-alive\n\n', 'event: output\ndata: cut'])).toEqual([]);
});

test('an event without an id keeps the last one, so resuming goes on from there', () => {
  expect(parse(['id: 7\ndata: a\n\n', 'data: b\n\n']).map(({ id }) => id)).toEqual(['7', '7']);
});

test('letters of several bytes survive being cut', async () => {
  let bytes = new TextEncoder().encode('data: ruhig – grün\n\n');
  let body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  let heard: string[] = [];
  await readEvents(body, ({ data }) => heard.push(data));
  expect(heard).toEqual(['ruhig – grün']);
});
