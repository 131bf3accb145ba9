/** The time for relative times, one ticker for the whole page. */
import { createSubscriber } from 'svelte/reactivity';

let tick = createSubscriber((update) => {
  let timer = setInterval(update, 1000);
  return () => clearInterval(timer);
});

/** Milliseconds since the epoch; what reads it is shown anew every second. */
export function now(): number {
  tick();
  return Date.now();
}
