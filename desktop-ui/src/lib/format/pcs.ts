/** The PCs of the pool in words and numbers. */
import type { Worker } from '$lib/api/types';

/** How many PCs would take a job now. */
export function freeWorkers(workers: Worker[]): number {
  return workers.filter(isFree).length;
}

function isFree(worker: Worker): boolean {
  let taking = worker.status === 'ready' || worker.status === 'working';
  return taking && !worker.sickSince && (worker.running?.length ?? 0) < worker.slots;
}
