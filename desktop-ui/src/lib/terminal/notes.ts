/** Lull's own lines between a command's output: the prompt, which PC, how it ended. */
import type { AttemptEnding, Job, OutputEvent } from '$lib/api/types';
import { size } from '$lib/format/size';
import { duration } from '$lib/format/time';
import { ENDING_NAME, printable, resultWords } from '$lib/format/words';

const RESET = '\x1b[0m';
const DIM = '\x1b[90m';
const ACCENT = '\x1b[1;36m';

const MARK: Record<Job['status'], string> = {
  completed: '\x1b[32m✓',
  failed: '\x1b[31m✗',
  cancelled: '\x1b[90m■',
  running: '\x1b[90m…',
  pending: '\x1b[90m…',
};

/** The command as it was typed, several lines one below the other. */
export function promptLines(command: string): string {
  let lines = printable(command).split('\n');
  let shown = lines.map((line, index) => `${ACCENT}${index === 0 ? '❯' : '·'}${RESET} ${line}\n`);
  return shown.join('');
}

/** A line of Lull's own, told apart from output by its colour. */
export function noteLine(text: string): string {
  return `${DIM}  ${printable(text)}${RESET}\n`;
}

function requeuedWords(ending: AttemptEnding, message: string | null | undefined): string {
  let why = message ? `: ${message}` : '';
  return `${ENDING_NAME[ending]}${why}. Another PC starts over.`;
}

/** How the job ended, on a line of its own. */
export function endLine(job: Job): string {
  let took =
    job.startedAt && job.completedAt ? ` in ${duration(job.completedAt - job.startedAt)}` : '';
  let where = job.hostname ? ` on ${job.hostname}` : '';
  let words =
    job.status === 'completed' ? `completed${where}${took}` : `${job.status}${where}${took}`;
  let result = job.status === 'cancelled' ? '' : ` · ${resultWords(job)}`;
  let why = job.status === 'failed' && job.exitCode !== null && job.errorMessage;
  let detail = why ? ` · ${job.errorMessage}` : '';
  return `${MARK[job.status]} ${DIM}${printable(words + result + detail)}${RESET}\n`;
}

/** Turns events into terminal text. Keeps whether the last output ended its line, so that notes start on their own. */
export class EventText {
  #lineOpen = false;

  note(text: string): string {
    return this.#fresh() + text;
  }

  of(event: OutputEvent): string {
    switch (event.event) {
      case 'started':
        return this.note(
          noteLine(
            event.attempt > 1
              ? `attempt ${event.attempt} on ${event.hostname}`
              : `running on ${event.hostname}`,
          ),
        );
      case 'output':
        if (event.data !== '') this.#lineOpen = !event.data.endsWith('\n');
        return event.data;
      case 'dropped':
        return this.note(noteLine(`… ${size(event.bytes)} of ${event.stream} are not kept …`));
      case 'requeued':
        return this.note(noteLine(requeuedWords(event.ending, event.errorMessage)));
      case 'ended':
        return this.note(endLine(event.job));
    }
  }

  #fresh(): string {
    let open = this.#lineOpen;
    this.#lineOpen = false;
    // Colours a command left on must not reach what follows.
    return open ? `${RESET}\n` : RESET;
  }
}
