-- Times are milliseconds since the epoch, ids are the 16 bytes of the UUID, digests and hashes 32 bytes.

create table workers (
    id             blob primary key not null,
    secret_hash    blob not null,
    hostname       text not null,
    os             text not null,
    arch           text not null,
    cpu_count      integer not null,
    memory_bytes   integer not null,
    version        text not null,
    slots          integer not null,
    sandbox_level  integer not null,
    state          text not null,
    reason         text,
    registered_at  integer not null,
    last_heartbeat integer not null
) without rowid;

create table tokens (
    id           blob primary key not null,
    secret_hash  blob not null,
    name         text not null,
    role         text not null,
    created_at   integer not null,
    expires_at   integer,
    last_used_at integer
) without rowid;

create table join_codes (
    id           blob primary key not null,
    secret_hash  blob not null,
    uses         integer not null,
    used         integer not null,
    created_at   integer not null,
    expires_at   integer not null,
    last_used_at integer
) without rowid;

-- A row here means: the bytes are durable in the blob store.
create table blobs (
    digest     blob primary key not null,
    size_bytes integer not null,
    created_at integer not null
) without rowid;

create table jobs (
    -- The order of acceptance, which is the order of claiming within one priority.
    seq              integer primary key,
    id               blob not null unique,
    state            text not null check (state in ('pending', 'running', 'completed', 'failed', 'cancelled')),
    priority         integer not null default 0,
    name             text not null,
    command          text not null,
    file_digest      blob references blobs (digest),
    filename         text,
    env              text not null,
    outputs          text not null,
    min_sandbox      integer not null,
    on_worker_lost   text not null,
    token_id         blob not null,
    submitted_by     text not null,
    idempotency_key  text,
    body_hash        blob,
    created_at       integer not null,
    started_at       integer,
    completed_at     integer,
    -- End of the backoff; 0 when the job may be claimed.
    not_before       integer not null default 0,
    -- Number of the current or last attempt: the fencing token.
    attempt          integer not null default 0,
    worker_id        blob references workers (id),
    lease_expires_at integer,
    cancel_requested integer not null default 0,
    could_not_run    integer not null default 0,
    workers_lost     integer not null default 0,
    exit_code        integer,
    error_message    text
);

-- One short range for each requirement, so that jobs nobody can run are never looked at.
create index jobs_claimable on jobs (min_sandbox, priority desc, seq) where state = 'pending' and not_before = 0;
create index jobs_in_backoff on jobs (not_before) where state = 'pending' and not_before > 0;
create index jobs_leased on jobs (lease_expires_at) where state = 'running';
create index jobs_held on jobs (worker_id) where state = 'running';
create index jobs_by_state on jobs (state, seq);
create index jobs_by_worker on jobs (worker_id, seq);
create unique index jobs_by_key on jobs (token_id, idempotency_key) where idempotency_key is not null;

-- How many jobs there are in each state, kept so that no page has to count them.
create table job_counts (
    state text primary key not null,
    jobs  integer not null
) without rowid;

insert into job_counts (state, jobs)
values ('pending', 0), ('running', 0), ('completed', 0), ('failed', 0), ('cancelled', 0);

create trigger job_counted after insert on jobs begin
    update job_counts set jobs = jobs + 1 where state = new.state;
end;

create trigger job_recounted after update of state on jobs when old.state <> new.state begin
    update job_counts set jobs = jobs - 1 where state = old.state;
    update job_counts set jobs = jobs + 1 where state = new.state;
end;

create table attempts (
    job           integer not null references jobs (seq),
    number        integer not null,
    worker_id     blob not null references workers (id),
    hostname      text not null,
    started_at    integer not null,
    ended_at      integer,
    ending        text,
    exit_code     integer,
    error_message text,
    -- Of the worker's report, so that the same report again gets the same reply.
    report_hash   blob,
    reply_state   text,
    primary key (job, number)
) without rowid;

create table artifacts (
    job        integer not null references jobs (seq),
    attempt    integer not null,
    position   integer not null,
    name       text not null,
    digest     blob not null references blobs (digest),
    size_bytes integer not null,
    primary key (job, attempt, position)
) without rowid;

-- How far each stream of an attempt is stored, and how much of its end.
create table streams (
    job         integer not null references jobs (seq),
    attempt     integer not null,
    stream      integer not null,
    next_offset integer not null,
    tail_bytes  integer not null,
    primary key (job, attempt, stream)
) without rowid;

-- What happened to a job, in order; output is among it.
create table events (
    seq           integer primary key,
    job           integer not null references jobs (seq),
    attempt       integer not null,
    kind          text not null check (kind in ('started', 'output', 'requeued', 'ended')),
    stream        integer,
    start         integer,
    data          blob,
    hostname      text,
    ending        text,
    error_message text
);

create index events_of_job on events (job, seq);
create index events_of_stream on events (job, attempt, stream, start) where stream is not null;
