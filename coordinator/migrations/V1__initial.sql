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
    labels         text not null default '[]',
    network        text not null default 'none',
    state          text not null,
    reason         text,
    draining       integer not null default 0,
    -- The different users whose jobs failed here since the last success.
    failed_users   text not null default '[]',
    sick_since     integer,
    registered_at  integer not null,
    last_heartbeat integer not null
) without rowid;

create table tokens (
    id           blob primary key not null,
    secret_hash  blob not null,
    name         text not null,
    role         text not null,
    weight       integer not null default 1,
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
    -- When it was last uploaded, asked for before an upload, or submitted with.
    used_at    integer not null
) without rowid;

create index blobs_by_use on blobs (used_at);

-- Whose turn it is: start-time fair queueing. `served` grows by 1/weight of a turn with each job that is handed out.
create table users (
    id       integer primary key,
    token_id blob not null unique,
    name     text not null,
    weight   integer not null,
    served   integer not null default 0,
    -- How many of its jobs wait, those of an array one by one; kept so that nobody has to count them.
    waiting  integer not null default 0
);

-- The turn that was last given, in the same measure.
create table turns (
    id   integer primary key check (id = 0),
    turn integer not null
);

insert into turns (id, turn) values (0, 0);

-- Jobs with equal requirements are one class: whether a PC meets them is asked once for all of them.
create table classes (
    id           integer primary key,
    requirements text not null unique
);

-- What is run; the jobs of an array and those submitted again share it.
create table specs (
    id          integer primary key,
    name        text not null,
    file_digest blob references blobs (digest),
    body        text not null
);

create index specs_by_name on specs (name);

create index specs_by_file on specs (file_digest) where file_digest is not null;

create table jobs (
    -- The order of acceptance, which is the order of claiming within one user and priority.
    seq              integer primary key,
    id               blob not null unique,
    state            text not null check (state in ('pending', 'running', 'completed', 'failed', 'cancelled')),
    -- Whether it may be claimed now; an array stays ready until its last job was handed out.
    ready            integer not null,
    class_id         integer not null references classes (id),
    priority         integer not null,
    user_id          integer not null references users (id),
    spec_id          integer not null references specs (id),
    is_array         integer not null default 0,
    -- The array it belongs to, and its number there.
    array            integer references jobs (seq),
    array_index      integer,
    retries          integer not null,
    on_worker_lost   text not null,
    held             integer not null default 0,
    -- How many jobs that it waits for have not completed.
    blocked_by       integer not null default 0,
    -- End of the backoff; 0 when there is none.
    not_before       integer not null default 0,
    -- When it fails unless it has begun.
    queue_deadline   integer,
    idempotency_key  text,
    body_hash        blob,
    resubmitted_from blob,
    created_at       integer not null,
    started_at       integer,
    completed_at     integer,
    -- Number of the current or last attempt: the fencing token.
    attempt          integer not null default 0,
    worker_id        blob references workers (id),
    lease_expires_at integer,
    cancel_requested integer not null default 0,
    failures         integer not null default 0,
    could_not_run    integer not null default 0,
    workers_lost     integer not null default 0,
    exit_code        integer,
    error_message    text
);

-- Everything that may be claimed now and nothing else: for each class the highest priority, then user by user.
create index jobs_ready on jobs (class_id, priority desc, user_id, seq) where ready = 1;
create index jobs_in_backoff on jobs (not_before) where state = 'pending' and not_before > 0;
create index jobs_with_deadline on jobs (queue_deadline) where queue_deadline is not null;
create index jobs_leased on jobs (lease_expires_at) where lease_expires_at is not null;
create index jobs_held on jobs (worker_id) where lease_expires_at is not null;
create index jobs_listed on jobs (seq) where array is null;
create index jobs_listed_by_state on jobs (state, seq) where array is null;
create index jobs_by_worker on jobs (worker_id, seq) where worker_id is not null;
create index jobs_by_array on jobs (array, array_index) where array is not null;
create index jobs_by_spec on jobs (spec_id);
create index jobs_ended on jobs (completed_at) where completed_at is not null and array is null;
create unique index jobs_by_key on jobs (user_id, idempotency_key) where idempotency_key is not null;

-- The table of transitions; `lifecycle` in the code is the same table.
create trigger job_moved before update of state on jobs
when old.state <> new.state and not (
    old.state = 'pending' and new.state in ('running', 'failed', 'cancelled')
    or old.state = 'running' and new.state in ('completed', 'failed', 'cancelled', 'pending'))
begin
    select raise(abort, 'a job cannot change its state like this');
end;

-- How many jobs there are in each state, kept so that no page has to count them. The jobs of an array count one by
-- one, also those that were not handed out yet; the array itself does not.
create table job_counts (
    state text primary key not null,
    jobs  integer not null
) without rowid;

insert into job_counts (state, jobs)
values ('pending', 0), ('running', 0), ('completed', 0), ('failed', 0), ('cancelled', 0);

create table arrays (
    job                 integer primary key references jobs (seq),
    count               integer not null,
    -- The number of the next job to hand out.
    next                integer not null default 0,
    -- Those that will never be handed out.
    cancelled_unstarted integer not null default 0,
    failed_unstarted    integer not null default 0,
    -- Of those handed out.
    running             integer not null default 0,
    completed           integer not null default 0,
    failed              integer not null default 0,
    cancelled           integer not null default 0
);

-- 256 items in each row.
create table array_items (
    job   integer not null references jobs (seq),
    chunk integer not null,
    items text not null,
    primary key (job, chunk)
) without rowid;

create trigger job_counted after insert on jobs when new.is_array = 0 begin
    update job_counts set jobs = jobs + 1 where state = new.state;
end;

create trigger job_recounted after update of state on jobs when old.state <> new.state and new.is_array = 0 begin
    update job_counts set jobs = jobs + case state when new.state then 1 else -1 end
     where state in (old.state, new.state);
end;

create trigger waiting_counted after insert on jobs when new.is_array = 0 and new.state = 'pending' begin
    update users set waiting = waiting + 1 where id = new.user_id;
end;

create trigger waiting_recounted after update of state on jobs
when old.state <> new.state and new.is_array = 0 and 'pending' in (old.state, new.state) begin
    update users set waiting = waiting + (new.state = 'pending') - (old.state = 'pending') where id = new.user_id;
end;

create trigger member_counted after insert on jobs when new.array is not null begin
    update arrays set running = running + (new.state = 'running') where job = new.array;
end;

create trigger member_recounted after update of state on jobs when old.state <> new.state and new.array is not null begin
    update arrays set running   = running   + (new.state = 'running') - (old.state = 'running'),
                      completed = completed + (new.state = 'completed'),
                      failed    = failed    + (new.state = 'failed'),
                      cancelled = cancelled + (new.state = 'cancelled')
     where job = new.array;
end;

create trigger job_uncounted after delete on jobs when old.is_array = 0 begin
    update job_counts set jobs = jobs - 1 where state = old.state;
end;

create trigger array_counted after insert on arrays begin
    update job_counts set jobs = jobs + new.count where state = 'pending';
    update users set waiting = waiting + new.count where id = (select user_id from jobs where seq = new.job);
end;

create trigger array_recounted after update of next, cancelled_unstarted, failed_unstarted on arrays begin
    update job_counts set jobs = jobs - (new.next - old.next)
                                      - (new.cancelled_unstarted - old.cancelled_unstarted)
                                      - (new.failed_unstarted - old.failed_unstarted)
     where state = 'pending';
    update job_counts set jobs = jobs + new.cancelled_unstarted - old.cancelled_unstarted
     where state = 'cancelled';
    update job_counts set jobs = jobs + new.failed_unstarted - old.failed_unstarted where state = 'failed';
    update users set waiting = waiting - (new.next - old.next)
                                       - (new.cancelled_unstarted - old.cancelled_unstarted)
                                       - (new.failed_unstarted - old.failed_unstarted)
     where id = (select user_id from jobs where seq = new.job);
end;

create trigger array_uncounted after delete on arrays begin
    update job_counts set jobs = jobs - old.cancelled_unstarted where state = 'cancelled';
    update job_counts set jobs = jobs - old.failed_unstarted where state = 'failed';
end;

-- A row here means: the job waits for the other one.
create table dependencies (
    job   integer not null references jobs (seq),
    needs integer not null references jobs (seq),
    primary key (job, needs)
) without rowid;

create index dependencies_by_need on dependencies (needs, job);

-- Ended jobs that others may still wait for.
create table ended_needs (
    job integer primary key references jobs (seq)
);

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

create index artifacts_by_digest on artifacts (digest);

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
