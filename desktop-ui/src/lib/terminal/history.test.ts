/** Tests of walking through commands typed before. */
import { expect, test } from 'vitest';

import { CommandHistory } from './history';

function historyOf(entries: string[]) {
  let saved: string[][] = [];
  let history = new CommandHistory({ load: () => entries, save: (all) => saved.push(all) });
  return { history, saved };
}

test('the arrows walk back and forth and give the draft back', () => {
  let { history } = historyOf(['one', 'two']);
  expect(history.older('dra')).toBe('two');
  expect(history.older('two')).toBe('one');
  expect(history.older('one')).toBeNull();
  expect(history.newer()).toBe('two');
  expect(history.newer()).toBe('dra');
  expect(history.newer()).toBeNull();
});

test('a command run twice in a row is kept once', () => {
  let { history, saved } = historyOf(['one']);
  history.add('one');
  expect(saved).toEqual([]);
  history.add('two');
  expect(saved).toEqual([['one', 'two']]);
  expect(history.older('')).toBe('two');
});

test('running a command ends the walk', () => {
  let { history } = historyOf(['one', 'two']);
  history.older('');
  history.older('');
  history.add('one');
  expect(history.older('')).toBe('one');
});

test('the list does not grow without end', () => {
  let { history, saved } = historyOf([]);
  for (let index = 0; index < 250; index += 1) history.add(`command ${index}`);
  expect(saved.at(-1)?.length).toBe(200);
  expect(saved.at(-1)?.at(-1)).toBe('command 249');
});
