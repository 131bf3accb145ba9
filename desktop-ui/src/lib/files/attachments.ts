/** Folders and zips that a person chose or dropped in the browser, kept until they are packed. */
import { ProblemError, ownProblem, toProblem } from '$lib/api/problem';
import type { Attachment, DropListener } from '$lib/platform';

/** One file of a folder, with its path inside it, separated by `/`. */
export interface FolderFile {
  path: string;
  file: File;
}

export type Picked =
  { kind: 'zip'; name: string; file: File } | { kind: 'folder'; name: string; files: FolderFile[] };

/** All a dropped folder holds. Reads in rounds: a browser gives at most a hundred entries at a time. */
async function filesOf(folder: FileSystemDirectoryEntry, prefix: string): Promise<FolderFile[]> {
  let reader = folder.createReader();
  let files: FolderFile[] = [];
  for (;;) {
    let entries = await new Promise<FileSystemEntry[]>((resolve, reject) => {
      reader.readEntries(resolve, reject);
    });
    if (entries.length === 0) return files;
    for (let entry of entries) {
      let path = prefix + entry.name;
      if (entry.isDirectory) {
        files.push(...(await filesOf(entry as FileSystemDirectoryEntry, `${path}/`)));
      } else {
        let file = await new Promise<File>((resolve, reject) => {
          (entry as FileSystemFileEntry).file(resolve, reject);
        });
        files.push({ path, file });
      }
    }
  }
}

function isZip(file: File): boolean {
  return file.name.toLowerCase().endsWith('.zip');
}

function hasFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes('Files') ?? false;
}

export class Attachments {
  #picked = new Map<string, Picked>();
  #count = 0;

  get(pickId: string): Picked {
    let picked = this.#picked.get(pickId);
    if (!picked) throw new ProblemError(ownProblem('The attachment is gone', 'Attach it again.'));
    return picked;
  }

  /** Opens the browser's own dialog. */
  pick(kind: 'folder' | 'zip'): Promise<Attachment | null> {
    let input = document.createElement('input');
    input.type = 'file';
    if (kind === 'folder') input.webkitdirectory = true;
    else input.accept = '.zip,application/zip';
    return new Promise((resolve, reject) => {
      input.addEventListener('cancel', () => resolve(null));
      input.addEventListener('change', () => {
        try {
          resolve(this.#fromInput(kind, [...(input.files ?? [])]));
        } catch (error) {
          reject(error instanceof Error ? error : new Error('not readable'));
        }
      });
      input.click();
    });
  }

  /** Takes what is dropped anywhere on the page. */
  onDrop(listener: DropListener): () => void {
    let abort = new AbortController();
    let { signal } = abort;
    addEventListener(
      'dragover',
      (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        listener.onDragging(true);
      },
      { signal },
    );
    addEventListener(
      'dragleave',
      (event) => {
        if (event.relatedTarget === null) listener.onDragging(false);
      },
      { signal },
    );
    addEventListener(
      'drop',
      (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        listener.onDragging(false);
        void this.#fromDrop(event.dataTransfer).then(
          (attachment) => attachment && listener.onAttached(attachment),
          (error: unknown) => listener.onProblem(toProblem(error)),
        );
      },
      { signal },
    );
    return () => abort.abort();
  }

  #fromInput(kind: 'folder' | 'zip', files: File[]): Attachment {
    let first = files[0];
    if (!first) {
      throw new ProblemError(ownProblem('The folder is empty', 'There is nothing to send.'));
    }
    if (kind === 'zip') return this.#keepZip(first);
    // Every path begins with the name of the chosen folder, which the job does not need.
    let name = first.webkitRelativePath.split('/')[0] ?? 'folder';
    return this.#keepFolder(
      name,
      files.map((file) => ({ path: file.webkitRelativePath.slice(name.length + 1), file })),
    );
  }

  /** A folder or a zip as it is; anything else becomes a folder of the dropped files. */
  async #fromDrop(data: DataTransfer | null): Promise<Attachment | null> {
    // The list is emptied at the first await, so everything is taken from it now.
    let entries = [...(data?.items ?? [])]
      .map((item) => item.webkitGetAsEntry())
      .filter((entry) => entry !== null);
    let dropped = [...(data?.files ?? [])];
    let folder = entries.find((entry) => entry.isDirectory);
    if (folder && entries.length === 1) {
      return this.#keepFolder(folder.name, await filesOf(folder as FileSystemDirectoryEntry, ''));
    }
    if (dropped.length === 1 && dropped[0] && isZip(dropped[0])) return this.#keepZip(dropped[0]);
    let files: FolderFile[] = [];
    for (let [index, entry] of entries.entries()) {
      let file = dropped[index];
      if (entry.isDirectory) {
        files.push(...(await filesOf(entry as FileSystemDirectoryEntry, `${entry.name}/`)));
      } else if (file) {
        files.push({ path: file.name, file });
      }
    }
    if (files.length === 0) return null;
    return this.#keepFolder(
      files.length === 1 && files[0] ? files[0].path : 'dropped files',
      files,
    );
  }

  #keepZip(file: File): Attachment {
    if (!isZip(file)) {
      throw new ProblemError(
        ownProblem('That is not a zip', 'Choose a file that ends in .zip, or attach a folder.'),
      );
    }
    return this.#keep({ kind: 'zip', name: file.name, file }, file.size);
  }

  #keepFolder(name: string, files: FolderFile[]): Attachment {
    let size = files.reduce((sum, { file }) => sum + file.size, 0);
    return this.#keep({ kind: 'folder', name, files }, size);
  }

  #keep(picked: Picked, sizeBytes: number): Attachment {
    let pickId = `pick-${this.#count++}`;
    this.#picked.set(pickId, picked);
    return { pickId, name: picked.name, sizeBytes };
  }
}
