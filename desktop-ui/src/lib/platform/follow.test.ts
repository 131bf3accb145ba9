/** Tests of following: resuming after cuts, ending at the end, giving up only where waiting is no use. */
import { expect, test } from 'vitest';

import type { OutputEvent, Problem } from '$lib/api/types';
import { aJob } from '$lib/testing/builders';

import { follow } from './follow';

function stream(...events: [id: string, event: OutputEvent][]): Response {
  let text = events.map(
    ([id, event]) => `event: ${event.event}\nid: ${id}\ndata: ${JSON.stringify(event)}\n\n`,
  );
  return new Response(text.join(''), { headers: { 'content-type': 'text/event-stream' } });
}

function output(data: string): OutputEvent {
  return { event: 'output', attempt: 1, stream: 'stdout', offset: 0, data };
}

const ENDED: OutputEvent = { event: 'ended', job: aJob({ status: 'completed' }) };

async function hears(replies: (Response | Error)[]) {
  let cursors: (string | null)[] = [];
  let heard: string[] = [];
  let waited: number[] = [];
  let problems: Problem[] = [];
  let listener = {
    onEvent: (event: OutputEvent) =>
      heard.push(event.event === 'output' ? event.data : event.event),
    onConnection: (connected: boolean) => heard.push(connected ? '+' : '-'),
    onProblem: (problem: Problem) => problems.push(problem),
  };
  await follow(
    (request) => {
      cursors.push(request.headers.get('last-event-id'));
      let reply = replies.shift();
      if (!reply) throw new Error('asked too often');
      return reply instanceof Error ? Promise.reject(reply) : Promise.resolve(reply);
    },
    'http://pool.example/api/jobs/output?jobId=1',
    listener,
    new AbortController().signal,
    (ms) => {
      waited.push(ms);
      return Promise.resolve();
    },
  );
  return { cursors, heard, waited, problems };
}

test('the end of the job ends the following', async () => {
  let { heard, cursors } = await hears([stream(['a', output('one')], ['b', ENDED])]);
  expect(heard).toEqual(['+', 'one', 'ended']);
  expect(cursors).toEqual([null]);
});

test('a cut is resumed after the last event that arrived', async () => {
  let { heard, cursors } = await hears([
    stream(['a', output('one')]),
    new TypeError('network'),
    stream(['b', output('two')], ['c', ENDED]),
  ]);
  expect(heard).toEqual(['+', 'one', '-', '-', '+', 'two', 'ended']);
  expect(cursors).toEqual([null, 'a', 'a']);
});

test('waiting grows while nothing comes and begins anew after an event', async () => {
  let { waited } = await hears([
    new TypeError('network'),
    new TypeError('network'),
    stream(['a', output('one')]),
    stream(['b', ENDED]),
  ]);
  expect(waited).toEqual([500, 1000, 500]);
});

test('a refusal is told and not asked again, a busy server is asked again', async () => {
  let refusal = { type: '/problems/not_found', kind: 'not_found', title: 'None', status: 404 };
  let refused = await hears([Response.json(refusal, { status: 404 })]);
  expect(refused.problems.map(({ kind }) => kind)).toEqual(['not_found']);

  let busy = await hears([new Response('', { status: 503 }), stream(['a', ENDED])]);
  expect(busy.problems).toEqual([]);
  expect(busy.heard).toEqual(['-', '+', 'ended']);
});
