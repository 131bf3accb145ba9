/** Tests of the prompt's keys, one line per rule. */
import { expect, test } from 'vitest';

import { type Key, type KeyAction, type Line, keyAction } from './keys';

function key(name: string, held: Partial<Key> = {}): Key {
  return {
    key: name,
    shiftKey: false,
    ctrlKey: false,
    altKey: false,
    metaKey: false,
    isComposing: false,
    ...held,
  };
}

/** A line with the caret at `|`, or a selection between two of them. */
function line(marked: string): Line {
  let text = marked.replaceAll('|', '');
  let first = marked.indexOf('|');
  let last = marked.lastIndexOf('|');
  return { text, selectionStart: first, selectionEnd: last > first ? last - 1 : first };
}

const CTRL = { ctrlKey: true };

test.each<[Key, string, boolean, KeyAction | null]>([
  [key('Enter'), 'ls|', false, 'run'],
  [key('Enter', { shiftKey: true }), 'ls|', false, null],
  [key('Enter', { isComposing: true }), 'ls|', false, null],
  [key('ArrowUp'), 'ls|', false, 'older'],
  [key('ArrowUp'), 'a\nb|', false, null],
  [key('ArrowUp'), 'a|\nb', false, 'older'],
  [key('ArrowUp', { shiftKey: true }), 'ls|', false, null],
  [key('ArrowUp'), '|ls|', false, null],
  [key('ArrowDown'), 'ls|', false, 'newer'],
  [key('ArrowDown'), 'a|\nb', false, null],
  [key('ArrowDown'), 'a\n|b', false, 'newer'],
  [key('c', CTRL), 'ls|', true, 'cancel'],
  [key('c', CTRL), 'ls|', false, 'clearLine'],
  [key('c', CTRL), '|ls|', true, null],
  [key('c', { metaKey: true }), 'ls|', true, null],
  [key('l', CTRL), '|', true, 'clearScreen'],
  [key('c'), 'ls|', true, null],
])('%o on %j while running=%j does %j', (pressed, marked, running, expected) => {
  expect(keyAction(pressed, line(marked), running)).toBe(expected);
});
