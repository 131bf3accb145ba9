/** Types of the coordinator's API. */
export interface paths {
  '/api/whoami': { get: Get<undefined, S['WhoAmI']> };
  '/api/workers': { get: Get<undefined, S['WorkerList']> };
  '/api/jobs': {
    get: Get<{ status?: S['JobState']; workerId?: string; limit?: number; cursor?: string }, S['JobList']>;
  };
  '/api/jobs/status': { get: Get<{ jobId: string }, S['Job']> };
  '/api/jobs/create': { post: Post<S['CreateJob'], S['Job']> };
  '/api/jobs/cancel': { post: Post<S['CancelJob'], S['Job']> };
}
type S = components['schemas'];
interface Get<Q, R> {
  parameters: { query?: Q; header?: never; path?: never; cookie?: never };
  requestBody?: never;
  responses: { 200: Ok<R>; default: Bad };
}
interface Post<B, R> {
  parameters: { query?: never; header?: never; path?: never; cookie?: never };
  requestBody: { content: { 'application/json': B } };
  responses: { 200: Ok<R>; default: Bad };
}
interface Ok<R> {
  headers: { [name: string]: unknown };
  content: { 'application/json': R };
}
interface Bad {
  headers: { [name: string]: unknown };
  content: { 'application/problem+json': S['Problem'] };
}
export interface components {
  schemas: {
    Role: 'viewer' | 'submitter' | 'admin';
    WhoAmI: { name: string; role: S['Role']; expiresAt?: number | null; directMode: boolean; version: string };
    SandboxLevel: 'l0' | 'l1' | 'l2' | 'l3';
    WorkerState: 'ready' | 'working' | 'suspended' | 'draining' | 'offline' | 'unknown';
    SuspendReason: 'pausedByOwner' | 'ownerActive' | 'cpuBusy' | 'onBattery' | 'idleTimeUnknown' | 'unknown';
    LeaseKey: { jobId: string; attempt: number };
    Worker: {
      workerId: string;
      hostname: string;
      os: string;
      arch: string;
      cpuCount: number;
      memoryBytes: number;
      version: string;
      status: S['WorkerState'];
      reason?: S['SuspendReason'] | null;
      lastHeartbeat: number;
      registeredAt: number;
      slots: number;
      running?: S['LeaseKey'][];
      sandboxLevel: S['SandboxLevel'];
    };
    WorkerList: { workers: S['Worker'][] };
    JobState: 'pending' | 'running' | 'completed' | 'failed' | 'cancelled';
    OnWorkerLost: 'retry' | 'fail';
    CreateJob: {
      command: string;
      name?: string | null;
      fileDigest?: string | null;
      filename?: string | null;
      env?: Record<string, string>;
      outputs?: string[];
      minSandbox?: S['SandboxLevel'];
      onWorkerLost?: S['OnWorkerLost'];
      idempotencyKey?: string | null;
    };
    Artifact: { name: string; digest: string; sizeBytes: number };
    AttemptEnding:
      'succeeded' | 'commandFailed' | 'refused' | 'couldNotRun' | 'givenBack' | 'workerLost' | 'cancelled';
    Attempt: {
      attempt: number;
      workerId: string;
      hostname: string;
      startedAt: number;
      endedAt?: number | null;
      ending?: S['AttemptEnding'] | null;
      exitCode?: number | null;
      errorMessage?: string | null;
    };
    Job: {
      jobId: string;
      status: S['JobState'];
      name: string;
      workerId?: string | null;
      hostname?: string | null;
      command: string;
      filename?: string | null;
      fileUrl?: string | null;
      stdout?: string | null;
      stderr?: string | null;
      exitCode?: number | null;
      errorMessage?: string | null;
      createdAt: number;
      startedAt?: number | null;
      completedAt?: number | null;
      attempt: number;
      attempts?: S['Attempt'][];
      artifacts?: S['Artifact'][];
      outputs?: string[];
      envNames?: string[];
      minSandbox?: S['SandboxLevel'];
      onWorkerLost?: S['OnWorkerLost'];
      submittedBy: string;
      cancelRequested?: boolean;
    };
    JobCounts: { pending: number; running: number; completed: number; failed: number; cancelled: number };
    JobList: { jobs: S['Job'][]; next?: string | null; counts: S['JobCounts'] };
    CancelJob: { jobId: string };
    StoredFile: { digest: string; sizeBytes: number };
    Stream: 'stdout' | 'stderr';
    OutputEvent:
      | { event: 'started'; attempt: number; hostname: string }
      | { event: 'output'; attempt: number; stream: S['Stream']; offset: number; data: string }
      | { event: 'dropped'; attempt: number; stream: S['Stream']; bytes: number }
      | { event: 'requeued'; attempt: number; ending: S['AttemptEnding']; errorMessage?: string | null }
      | { event: 'ended'; job: S['Job'] };
    ProblemKind:
      | 'invalid' | 'unauthenticated' | 'forbidden' | 'not_found' | 'method_not_allowed' | 'lease_lost'
      | 'conflict' | 'offset_mismatch' | 'too_large' | 'archive_refused' | 'file_missing'
      | 'digest_mismatch' | 'join_refused' | 'direct_mode_off' | 'rate_limited' | 'disk_full'
      | 'unavailable' | 'timed_out' | 'unreachable' | 'internal' | 'unknown';
    Problem: {
      type: string;
      kind: S['ProblemKind'];
      title: string;
      status: number;
      detail?: string | null;
      requestId?: string | null;
      nextOffset?: number | null;
    };
    Connection:
      | { state: 'notJoined' }
      | { state: 'connecting'; address: string }
      | { state: 'connected'; address: string }
      | { state: 'unreachable'; address: string; error: string }
      | { state: 'refused'; address: string; error: string };
    LocalAttempt: {
      jobId: string;
      attempt: number;
      name: string;
      command: string;
      submittedBy: string;
      startedAt: number;
      endedAt?: number | null;
      ending?: S['AttemptEnding'] | null;
      exitCode?: number | null;
      errorMessage?: string | null;
    };
    LocalStatus: {
      workerId: string;
      hostname: string;
      connection: S['Connection'];
      state: S['WorkerState'];
      reason?: S['SuspendReason'] | null;
      slots: number;
      running?: S['LocalAttempt'][];
      paused: boolean;
      idleSecs?: number | null;
      othersCpuPercent?: number | null;
      onBattery?: boolean | null;
      sandboxLevel: S['SandboxLevel'];
      sandboxDetail: string;
      version: string;
    };
    LocalHistory: { attempts: S['LocalAttempt'][] };
  };
}
