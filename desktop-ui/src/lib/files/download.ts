/** Brings an artifact home in a browser: fetched with the token, then handed to the download folder. */
import type { Send } from '$lib/api/client';
import { ProblemError, problemOf } from '$lib/api/problem';
import type { Artifact } from '$lib/api/types';

/** Collected bytes become a blob part at this size: the browser keeps large blobs on disk. */
const PART_BYTES = 8 * 1024 * 1024;

export async function download(
  send: Send,
  artifact: Artifact,
  onProgress: (doneBytes: number) => void,
): Promise<void> {
  let query = new URLSearchParams({ name: artifact.name });
  let response = await send(new Request(`/api/files/${artifact.digest}?${query}`));
  if (!response.ok || !response.body) throw new ProblemError(await problemOf(response));
  let url = URL.createObjectURL(await collect(response.body, onProgress));
  let link = document.createElement('a');
  link.href = url;
  link.download = artifact.name;
  link.click();
  // The browser reads the blob after the click; the address may go once it has begun.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function collect(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  onProgress: (doneBytes: number) => void,
): Promise<Blob> {
  let parts: Blob[] = [];
  let waiting: Uint8Array<ArrayBuffer>[] = [];
  let waitingBytes = 0;
  let doneBytes = 0;
  let reader = body.getReader();
  for (;;) {
    let { done, value } = await reader.read();
    if (done || !value) break;
    waiting.push(value);
    waitingBytes += value.byteLength;
    doneBytes += value.byteLength;
    onProgress(doneBytes);
    if (waitingBytes >= PART_BYTES) {
      parts.push(new Blob(waiting));
      waiting = [];
      waitingBytes = 0;
    }
  }
  return new Blob([...parts, ...waiting], { type: 'application/octet-stream' });
}
