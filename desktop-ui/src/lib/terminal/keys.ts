/** What a key does on the prompt line. Pure, so that each rule is a line in a test. */

/** The part of a keyboard event that decides. */
export interface Key {
  key: string;
  shiftKey: boolean;
  ctrlKey: boolean;
  altKey: boolean;
  metaKey: boolean;
  /** An input method is putting a character together; Enter is its own then. */
  isComposing: boolean;
}

/** What is in the prompt line, and where the caret is. */
export interface Line {
  text: string;
  selectionStart: number;
  selectionEnd: number;
}

export type KeyAction = 'run' | 'older' | 'newer' | 'cancel' | 'clearLine' | 'clearScreen';

/** `null` leaves the key to the browser. */
export function keyAction(key: Key, line: Line, running: boolean): KeyAction | null {
  if (key.isComposing) return null;
  let plain = !key.ctrlKey && !key.altKey && !key.metaKey;
  if (key.key === 'Enter') return plain && !key.shiftKey ? 'run' : null;
  let collapsed = line.selectionStart === line.selectionEnd;
  if (key.key === 'ArrowUp' && plain && !key.shiftKey) {
    // Only from the first line, so that the arrows still move inside a command of several lines.
    return collapsed && !line.text.slice(0, line.selectionStart).includes('\n') ? 'older' : null;
  }
  if (key.key === 'ArrowDown' && plain && !key.shiftKey) {
    return collapsed && !line.text.slice(line.selectionEnd).includes('\n') ? 'newer' : null;
  }
  if (!key.ctrlKey || key.altKey || key.metaKey || key.shiftKey) return null;
  // With text selected Ctrl+C copies, as everywhere.
  if (key.key === 'c' && collapsed) return running ? 'cancel' : 'clearLine';
  if (key.key === 'l') return 'clearScreen';
  return null;
}
