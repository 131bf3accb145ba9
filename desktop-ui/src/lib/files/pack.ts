/** Turns a chosen folder or zip into one blob and its SHA-256, in a web worker so that the page stays awake. */
import { ProblemError, ownProblem } from '$lib/api/problem';
import type { Progress } from '$lib/platform';

import type { Picked } from './attachments';
import type { PackReply } from './pack.worker';

export interface Packed {
  blob: Blob;
  digest: string;
  filename: string;
}

export function pack(
  picked: Picked,
  onProgress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Packed> {
  let filename = picked.kind === 'zip' ? picked.name : `${picked.name}.zip`;
  return new Promise((resolve, reject) => {
    let worker = new Worker(new URL('./pack.worker.ts', import.meta.url), { type: 'module' });
    function settle(then: () => void) {
      worker.terminate();
      then();
    }
    function fail(detail: string) {
      settle(() =>
        reject(new ProblemError(ownProblem('The attachment could not be read', detail))),
      );
    }
    signal.addEventListener('abort', () =>
      settle(() => reject(new DOMException('', 'AbortError'))),
    );
    worker.addEventListener('error', () => fail('The browser could not start packing it.'));
    worker.addEventListener('message', ({ data }: MessageEvent<PackReply>) => {
      if (data.type === 'progress') {
        onProgress({ sentBytes: data.doneBytes, totalBytes: data.totalBytes, phase: 'packing' });
      } else if (data.type === 'packed') {
        settle(() => resolve({ blob: data.blob, digest: data.digest, filename }));
      } else {
        fail(`${data.path} changed or went away since it was attached. Attach it again.`);
      }
    });
    worker.postMessage(picked);
  });
}
