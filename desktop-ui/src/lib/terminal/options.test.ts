/** Tests of the options of a job: what is typed becomes the submission, and what cannot be read is named. */
import { expect, test } from 'vitest';

import { toProblem } from '$lib/api/problem';

import { type JobOptions, NO_OPTIONS, chosenOptions, seconds, submission } from './options';

function submits(given: Partial<JobOptions>, command = 'true') {
  return submission(command, { ...NO_OPTIONS, ...given });
}

function refusedTitle(given: Partial<JobOptions>): string {
  try {
    submits(given);
  } catch (error) {
    return toProblem(error).title;
  }
  return 'accepted';
}

test('nothing chosen asks for nothing but the usual', () => {
  expect(chosenOptions(NO_OPTIONS)).toBe(0);
  expect(submits({})).toEqual({
    command: 'true',
    onError: 'stop',
    priority: 0,
    retries: 0,
    requirements: { network: 'none' },
    onWorkerLost: 'retry',
    onOwnerReturn: 'pause',
    hold: false,
  });
});

test('everything chosen is in the submission', () => {
  let all: JobOptions = {
    name: ' nightly ',
    shell: 'powershell',
    onError: 'continue',
    env: 'A=1\n\nB=two = 2',
    priority: '-7',
    retries: '3',
    timeout: '2h',
    maxQueue: '90',
    os: 'windows',
    arch: 'x86_64',
    minCpus: '4',
    minMemoryGb: '1,5',
    labels: 'gpu, fast',
    minSandbox: 'l3',
    network: 'internet',
    onWorkerLost: 'fail',
    onOwnerReturn: 'move',
    hold: true,
    after: 'a b',
    count: '',
    items: 'one item\nanother',
  };
  expect(chosenOptions(all)).toBe(20);
  expect(submission('dir', all)).toEqual({
    command: 'dir',
    shell: 'powershell',
    onError: 'continue',
    name: 'nightly',
    env: { A: '1', B: 'two = 2' },
    priority: -7,
    retries: 3,
    timeoutSecs: 7200,
    maxQueueSecs: 90,
    requirements: {
      os: 'windows',
      arch: 'x86_64',
      minCpus: 4,
      minMemoryBytes: 1.5 * 2 ** 30,
      labels: ['gpu', 'fast'],
      minSandbox: 'l3',
      network: 'internet',
    },
    onWorkerLost: 'fail',
    onOwnerReturn: 'move',
    hold: true,
    after: ['a', 'b'],
    items: ['one item', 'another'],
  });
});

test('without a shell each line is one argument', () => {
  let job = submits({ shell: 'argv' }, 'python3\n-c\nprint("a b")');
  expect(job.argv).toEqual(['python3', '-c', 'print("a b")']);
  expect(job.command).toBeUndefined();
});

test('times have units', () => {
  let read = (text: string) => seconds('May run for', text);
  expect(['', '45', '90s', '1.5 m', '2H', '1d'].map(read)).toEqual([
    null,
    45,
    90,
    90,
    7200,
    86_400,
  ]);
});

test('what cannot be read is named by its field', () => {
  expect([
    refusedTitle({ timeout: 'soon' }),
    refusedTitle({ maxQueue: '0' }),
    refusedTitle({ priority: '101' }),
    refusedTitle({ retries: '1.5' }),
    refusedTitle({ minMemoryGb: 'much' }),
    refusedTitle({ env: 'NOVALUE' }),
    refusedTitle({ env: 'A=1\nA=2' }),
    refusedTitle({ count: '3', items: 'x' }),
  ]).toEqual([
    'May run for cannot be used',
    'May wait for cannot be used',
    'Priority cannot be used',
    'Retries cannot be used',
    'Memory cannot be used',
    'Environment cannot be used',
    'Environment cannot be used',
    'Number of jobs cannot be used',
  ]);
});
