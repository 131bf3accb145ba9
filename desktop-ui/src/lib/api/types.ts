/** Short names for the wire types, all generated from the coordinator's own document. */
import type { components } from './schema';

type Schemas = components['schemas'];

export type ArrayCounts = Schemas['ArrayCounts'];
export type Artifact = Schemas['Artifact'];
export type Attempt = Schemas['Attempt'];
export type AttemptEnding = Schemas['AttemptEnding'];
export type Connection = Schemas['Connection'];
export type CreateJob = Schemas['CreateJob'];
export type Job = Schemas['Job'];
export type JobCounts = Schemas['JobCounts'];
export type JobState = Schemas['JobState'];
export type LocalAttempt = Schemas['LocalAttempt'];
export type LocalHistory = Schemas['LocalHistory'];
export type LocalStatus = Schemas['LocalStatus'];
export type OutputEvent = Schemas['OutputEvent'];
export type Explanation = Schemas['Explanation'];
export type OnError = Schemas['OnError'];
export type PoolEvent = Schemas['PoolEvent'];
export type Problem = Schemas['Problem'];
export type Requirements = Schemas['Requirements'];
export type Role = Schemas['Role'];
export type SandboxLevel = Schemas['SandboxLevel'];
export type SuspendReason = Schemas['SuspendReason'];
export type Worker = Schemas['Worker'];
export type WorkerState = Schemas['WorkerState'];
