/** Times for people. The wire has milliseconds since the epoch; `now` is a parameter, so that tests can set it. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `just now`, `12 s ago`, `5 min ago`, `3 h ago`, then the date. */
export function relativeTime(at: number, now: number): string {
  let ago = now - at;
  if (ago < 2 * SECOND) return 'just now';
  if (ago < MINUTE) return `${Math.floor(ago / SECOND)} s ago`;
  if (ago < HOUR) return `${Math.floor(ago / MINUTE)} min ago`;
  if (ago < DAY) return `${Math.floor(ago / HOUR)} h ago`;
  if (ago < 7 * DAY) {
    let days = Math.floor(ago / DAY);
    return days === 1 ? 'yesterday' : `${days} days ago`;
  }
  return new Date(at).toLocaleDateString(undefined, { dateStyle: 'medium' });
}

/** The full time, for tooltips and details. */
export function fullTime(at: number): string {
  return new Date(at).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

/** Time that still runs, in whole seconds: `0 s`, `59 s`, then like `duration`. */
export function elapsed(ms: number): string {
  return ms < MINUTE ? `${Math.floor(Math.max(0, ms) / SECOND)} s` : duration(ms);
}

/** `under 0.1 s`, `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`. */
export function duration(ms: number): string {
  if (ms < 50) return 'under 0.1 s';
  if (ms < 10 * SECOND) return `${(ms / SECOND).toFixed(1)} s`;
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  if (ms < HOUR) {
    let seconds = Math.floor((ms % MINUTE) / SECOND);
    return `${Math.floor(ms / MINUTE)} min ${String(seconds).padStart(2, '0')} s`;
  }
  return `${Math.floor(ms / HOUR)} h ${String(Math.floor((ms % HOUR) / MINUTE)).padStart(2, '0')} min`;
}
