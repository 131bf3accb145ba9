/** Writes a folder's files into a zip, one after the other, so that memory does not grow with the folder. */
import { ZipWriter, configure } from '@zip.js/zip.js/index-native.js';

import type { FolderFile } from './attachments';

// This runs in a worker of our own already; compression is the browser's.
configure({ useWebWorkers: false, useCompressionStream: true });

/** Packed by their own format: packing them again takes time and saves nothing. */
const PACKED =
  /\.(7z|avif|bz2|docx|flac|gif|gz|heic|jar|jpe?g|m4a|mkv|mov|mp[34]|ogg|png|rar|tgz|webm|webp|whl|xlsx|xz|zip|zst)$/i;

const REGULAR_FILE = 0o100000;
const ALL_MAY_RUN = 0o755;
const OWNER_MAY_WRITE = 0o644;

/**
 * Whether a file is meant to be run. A browser does not tell its permissions, so its beginning decides:
 * a script's `#!`, an ELF or a Mach-O program.
 */
export function looksRunnable(start: Uint8Array): boolean {
  let [a, b, c, d] = start;
  if (a === 0x23 && b === 0x21) return true;
  if (a === 0x7f && b === 0x45 && c === 0x4c && d === 0x46) return true;
  return b === 0xfa && c === 0xed && d === 0xfe && (a === 0xcf || a === 0xce);
}

/** The same folder gives the same bytes, so the coordinator recognises it: sorted paths, times of the files. */
export async function zipFolder(
  files: FolderFile[],
  sink: WritableStream<Uint8Array<ArrayBuffer>>,
  onProgress: (doneBytes: number) => void,
): Promise<void> {
  let zip = new ZipWriter(sink, { extendedTimestamp: false, keepOrder: true });
  let doneBytes = 0;
  let sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  for (let { path, file } of sorted) {
    let start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    await zip.add(path, file.stream(), {
      level: PACKED.test(path) ? 0 : 6,
      lastModDate: new Date(file.lastModified),
      unixMode: REGULAR_FILE | (looksRunnable(start) ? ALL_MAY_RUN : OWNER_MAY_WRITE),
      zip64: file.size >= 0xffff_ffff,
      uncompressedSize: file.size,
      onprogress: (bytes) => {
        onProgress(doneBytes + bytes);
        return undefined;
      },
    });
    doneBytes += file.size;
  }
  await zip.close();
}
