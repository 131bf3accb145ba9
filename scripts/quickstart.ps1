# From a fresh clone to a job that ran, on Windows: builds, starts a coordinator and a worker, runs a real job on the worker,
# prints its output and the address of the page. Ctrl-C ends everything it started.
#   -Exit    stop coordinator and worker when the job has ended, instead of leaving them running
param([switch]$Exit)
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$root = Split-Path -Parent $PSScriptRoot
$started = Get-Date

function Say($text) { Write-Host "==> $text" -ForegroundColor White }
function Need($program, $where) {
    if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { throw "$program is needed. Install it from $where and start again" }
}
function Wait-File($path, $what) {
    foreach ($try in 1..300) {
        if ((Test-Path $path) -and (Get-Item $path).Length -gt 0) { return }
        Start-Sleep -Milliseconds 100
    }
    throw "waited 30 s for $what in vain"
}

Need cargo 'https://rustup.rs'
Need npm 'https://nodejs.org'
if (-not $env:CARGO_TARGET_DIR) { $env:CARGO_TARGET_DIR = Join-Path $env:LOCALAPPDATA 'lull\target' }

Say 'building the page'
Push-Location (Join-Path $root 'desktop-ui')
try {
    npm ci --no-audit --no-fund --loglevel=error; if ($LASTEXITCODE) { throw 'npm ci failed' }
    npm run --silent build; if ($LASTEXITCODE) { throw 'the page could not be built' }
} finally { Pop-Location }

Say 'building coordinator, worker and the lull command (a few minutes the first time)'
cargo build --locked --quiet --manifest-path (Join-Path $root 'Cargo.toml') -p lull-coordinator -p lull-worker -p lull-cli
if ($LASTEXITCODE) { throw 'the build failed' }
$bin = Join-Path $env:CARGO_TARGET_DIR 'debug'

$data = Join-Path ([IO.Path]::GetTempPath()) "lull-quickstart-$PID"
New-Item -ItemType Directory $data | Out-Null
$processes = @()
try {
    Say 'starting a coordinator'
    $coordinatorData = Join-Path $data 'coordinator'
    $coordinatorReady = Join-Path $data 'coordinator.ready'
    $processes += Start-Process -PassThru -WindowStyle Hidden (Join-Path $bin 'lull-coordinator.exe') -ArgumentList @(
        '--data-dir', "`"$coordinatorData`"", '--listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:7701', '--ready-file', "`"$coordinatorReady`"")
    Wait-File $coordinatorReady 'the coordinator'
    $ready = Get-Content $coordinatorReady -Raw | ConvertFrom-Json
    $token = & (Join-Path $bin 'lull-coordinator.exe') --data-dir $coordinatorData token --role submitter --name quickstart

    Say 'starting a worker and letting it join'
    $workerReady = Join-Path $data 'worker.ready'
    $env:LULL_JOIN = & (Join-Path $bin 'lull-coordinator.exe') --data-dir $coordinatorData join-code
    $processes += Start-Process -PassThru -WindowStyle Hidden (Join-Path $bin 'lull-worker.exe') -ArgumentList @(
        '--data-dir', "`"$(Join-Path $data 'worker')`"", '--always', '--ready-file', "`"$workerReady`"")
    Wait-File $workerReady 'the worker'

    Say 'running a job on it: hash a small project, file by file'
    $env:LULL_URL = $ready.url
    $env:LULL_TOKEN = $token
    $env:LULL_CA = Join-Path $coordinatorData 'tls\ca.pem'
    $results = Join-Path (Get-Location) 'lull-quickstart-results'
    & (Join-Path $bin 'lull.exe') run --name 'hash a project' --dir (Join-Path $root 'examples\frames') --output 'out/*' --min-sandbox l0 --into $results -- `
        'mkdir out' 'for %f in (*.*) do @certutil -hashfile %f SHA256 >> out\hashes.txt' 'type out\hashes.txt'
    if ($LASTEXITCODE) { throw "the job ended with exit code $LASTEXITCODE" }

    Write-Host ''
    Write-Host "The job ran on the worker; its result is in $results"
    Write-Host "Page:        $($ready.httpUrl)"
    Write-Host "Sign in with $token"
    Write-Host "Took:        $([math]::Round(((Get-Date) - $started).TotalSeconds)) s"
    if (-not $Exit) {
        Write-Host "`nCoordinator and worker go on until you press Ctrl-C."
        Wait-Process -Id $processes.Id
    }
} finally {
    $processes | ForEach-Object { Stop-Process -Id $_.Id -Force -ErrorAction SilentlyContinue }
    Remove-Item -Recurse -Force $data -ErrorAction SilentlyContinue
}
