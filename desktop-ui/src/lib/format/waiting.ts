/** Why a job waits, from what the PCs of the pool are doing. */
import type { SandboxLevel, Worker } from '$lib/api/types';

const ORDER: SandboxLevel[] = ['l0', 'l1', 'l2', 'l3'];

function count(many: number, one: string, more: string): string {
  return many === 1 ? `one ${one}` : `${many} ${more}`;
}

/** How many PCs have a slot free now. */
export function freeWorkers(workers: Worker[]): number {
  return workers.filter(isFree).length;
}

function isFree(worker: Worker): boolean {
  let taking = worker.status === 'ready' || worker.status === 'working';
  return taking && (worker.running?.length ?? 0) < worker.slots;
}

/** A sentence for the person who waits; says what they can do when waiting will not help. */
export function waitingReason(workers: Worker[], minSandbox: SandboxLevel = 'l2'): string {
  if (workers.length === 0) {
    return 'Waiting for a PC: none has joined this pool yet. PCs tells how.';
  }
  let online = workers.filter(({ status }) => status !== 'offline');
  if (online.length === 0) {
    return `Waiting for a PC: all ${workers.length} are offline.`;
  }
  let isolated = online.filter(
    ({ sandboxLevel }) => ORDER.indexOf(sandboxLevel) >= ORDER.indexOf(minSandbox),
  );
  if (isolated.length === 0) {
    return 'Waiting for a PC that isolates jobs well enough: none that is online does.';
  }
  let free = freeWorkers(isolated);
  if (free > 0) return `Waiting for an idle PC: ${free} of ${isolated.length} free.`;
  let working = isolated.filter(({ status }) => status === 'working').length;
  let owners = isolated.filter(({ status }) => status === 'suspended').length;
  let why = [
    working > 0 ? count(working, 'is working', 'are working') : '',
    owners > 0
      ? count(owners, 'is used by its owner or resting', 'are used by their owners or resting')
      : '',
  ].filter((part) => part !== '');
  let detail = why.length > 0 ? ` ${why.join(', ')}` : '';
  return `Waiting for an idle PC: none of ${isolated.length} is free${detail === '' ? '' : ':' + detail}.`;
}
