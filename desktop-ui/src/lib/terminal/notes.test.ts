/** Tests of the lines that Lull itself writes between a command's output. */
import { expect, test } from 'vitest';

import type { OutputEvent } from '$lib/api/types';
import { aJob } from '$lib/testing/builders';

import { EventText, endLine, promptLines } from './notes';
import { Transcript } from './transcript';

/** What remains when the colours are taken away. */
function plain(text: string): string {
  // eslint-disable-next-line no-control-regex -- colours begin with one
  return text.replace(/\u001b\[[0-9;]*m/g, '');
}

function output(data: string): OutputEvent {
  return { event: 'output', attempt: 1, stream: 'stdout', offset: 0, data };
}

test('a note begins on a line of its own, whatever the command printed last', () => {
  let text = new EventText();
  let all = [
    text.of({ event: 'started', attempt: 1, hostname: 'studio' }),
    text.of(output('no line end')),
    text.of({
      event: 'requeued',
      attempt: 1,
      ending: 'givenBack',
      errorMessage: 'its owner is back',
    }),
    text.of({ event: 'started', attempt: 2, hostname: 'desk' }),
    text.of(output('whole line\n')),
    text.of({ event: 'dropped', attempt: 2, stream: 'stdout', bytes: 2_000_000 }),
  ];
  expect(plain(all.join(''))).toBe(
    [
      '  running on studio',
      'no line end',
      '  Given back: its owner is back. Another PC starts over.',
      '  attempt 2 on desk',
      'whole line',
      '  … 2.0 MB of stdout are not kept …',
      '',
    ].join('\n'),
  );
});

test('the end says how, where and how long', () => {
  let times = { startedAt: 1000, completedAt: 4200, hostname: 'studio' };
  expect(plain(endLine(aJob({ status: 'completed', exitCode: 0, ...times })))).toBe(
    '✓ completed on studio in 3.2 s · exit code 0\n',
  );
  expect(plain(endLine(aJob({ status: 'failed', errorMessage: 'the archive is refused' })))).toBe(
    '✗ failed · the archive is refused\n',
  );
  expect(plain(endLine(aJob({ status: 'cancelled', ...times })))).toBe(
    '■ cancelled on studio in 3.2 s\n',
  );
});

test('names and commands of others bring no control characters onto the screen', () => {
  let shown =
    promptLines('echo \u001b]0;title\u0007\r\nls') + endLine(aJob({ hostname: 'a\u001b[2Jb' }));
  expect(plain(shown)).toBe('❯ echo ]0;title\n· ls\n… pending on a[2Jb · no exit code\n');
});

test('a transcript shows what came before and after somebody looks, and forgets the oldest', () => {
  let transcript = new Transcript();
  transcript.write('before ');
  let seen = '';
  let hide = transcript.show({ write: (text) => (seen += text), clear: () => (seen = '') });
  transcript.write('after');
  expect(seen).toBe('before after');
  hide();
  transcript.write('x'.repeat(9 * 1024 * 1024));
  expect(seen).toBe('before after');
  transcript.show({ write: (text) => (seen = text.slice(0, 3)), clear: () => undefined });
  expect(seen).toBe('xxx');
});
