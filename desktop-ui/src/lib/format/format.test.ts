/** Tests of times, sizes and words for people. */
import { expect, test } from 'vitest';

import { aJob, aLocalStatus, aWorker } from '$lib/testing/builders';

import { memory, percent, size } from './size';
import { duration, elapsed, relativeTime } from './time';
import { freeWorkers } from './pcs';
import { localSentence, printable, resultWords, workerSentence } from './words';

test('times are as exact as a person needs them', () => {
  let now = 1_795_000_000_000;
  let ago = (seconds: number) => relativeTime(now - seconds * 1000, now);
  expect([
    ago(0),
    ago(-5),
    ago(12),
    ago(59),
    ago(60),
    ago(3600),
    ago(86_400),
    ago(3 * 86_400),
  ]).toEqual([
    'just now',
    'just now',
    '12 s ago',
    '59 s ago',
    '1 min ago',
    '1 h ago',
    'yesterday',
    '3 days ago',
  ]);
  expect([0, 420, 12_400, 185_000, 7_800_000].map(duration)).toEqual([
    'under 0.1 s',
    '0.4 s',
    '12 s',
    '3 min 05 s',
    '2 h 10 min',
  ]);
  expect([elapsed(1900), elapsed(-4), elapsed(61_000)]).toEqual(['1 s', '0 s', '1 min 01 s']);
});

test('sizes never show a thousand of a unit', () => {
  expect([0, 1, 999, 1000, 9_960, 999_600, 2_147_483_648].map(size)).toEqual([
    '0 bytes',
    '1 byte',
    '999 bytes',
    '1.0 kB',
    '10 kB',
    '1.0 MB',
    '2.1 GB',
  ]);
  expect([memory(25_276_502_016), memory(2 ** 29)]).toEqual(['24 GB', '512 MB']);
  expect([percent(0, 0), percent(1, 3), percent(9, 3)]).toEqual([0, 33, 100]);
});

test('a PC is free when it takes jobs and has a slot left', () => {
  let busy = aWorker({ status: 'working', running: [{ jobId: 'a', attempt: 1 }] });
  let resting = aWorker({ status: 'suspended', reason: 'ownerActive' });
  let offline = aWorker({ status: 'offline' });
  let sick = aWorker({ sickSince: 1_795_000_000_000 });
  expect(freeWorkers([])).toBe(0);
  expect(
    freeWorkers([aWorker(), busy, resting, offline, sick, aWorker({ ...busy, slots: 2 })]),
  ).toBe(2);
});

test('a PC says what it does and why', () => {
  expect(workerSentence(aWorker({ status: 'suspended', reason: 'onBattery' }))).toBe(
    'Takes no jobs: it runs on battery',
  );
  expect(localSentence(aLocalStatus({ connection: { state: 'notJoined' } })).title).toBe(
    'Not part of a pool',
  );
  expect(
    localSentence(aLocalStatus({ state: 'suspended', paused: true, reason: 'pausedByOwner' }))
      .title,
  ).toBe('Paused');
});

test('a result says the exit code, or else what went wrong', () => {
  expect(resultWords(aJob({ status: 'failed', exitCode: 2 }))).toBe('exit code 2');
  expect(resultWords(aJob({ status: 'failed', errorMessage: 'the disk is full' }))).toBe(
    'the disk is full',
  );
});

test('what could move the cursor or turn the text round is not shown', () => {
  expect(printable('a\u001b[2Jb\rc\u202ed\u2066e\u0085f')).toBe('a[2Jbcdef');
  expect(printable('line\n\ttab – ✓ ж 漢')).toBe('line\n\ttab – ✓ ж 漢');
});
