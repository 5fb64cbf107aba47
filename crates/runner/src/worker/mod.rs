//! Worker processes, supervised: started cold, asked and answered within a time limit, and ended for certain.
//!
//! Whatever a worker does (crash, hang, fork, flood, print garbage) ends in a [`WorkerError`] with the status that its
//! row gets, and leaves no process behind. Waiting costs next to nothing: the runner must not disturb the measurement.

mod affinity;
mod error;
mod guard;
mod interrupt;
mod log;
mod oom;
mod processes;
mod replies;
mod variables;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use command_fds::{CommandFdExt, FdMapping};
use dpsgd_protocol::REPLY_FD;
use dpsgd_protocol::messages::{PROTOCOL_VERSION, Reply, Request};
use dpsgd_protocol::results::Status;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use log::Log;
use oom::OomKills;
use processes::{Marks, TOKEN, end_all};
use replies::Answer;

pub(crate) use affinity::Confined;
pub use affinity::usable_cpus;
pub use error::WorkerError;
pub use guard::{GUARD_COMMAND, Guard, guard_main};
pub use interrupt::Interrupt;
pub use processes::is_alive;
pub use variables::{Allocator, recorded};

/// The worker's descriptor for replies. Small, because a shell script can redirect to a single digit only.
const REPLY_DESCRIPTOR: i32 = 3;
/// Time between two looks at the interrupt flag and at the process while waiting for a reply.
const TICK: Duration = Duration::from_millis(100);
/// How long to wait, once a worker has ended, for what it wrote before.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long to try to end a worker's processes.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How to start a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables beside those that every worker gets; see `variables.rs`.
    pub env: Vec<(String, String)>,
    /// How its memory is managed.
    pub allocator: Allocator,
    /// Logical processors to run on; empty for all.
    pub cpus: Vec<usize>,
    /// Threads to compute with, told to every library that has a variable for it.
    pub threads: usize,
    /// File to which stdout and stderr are appended, the middle of a flood cut out. Its folder must exist.
    pub log: PathBuf,
}

/// What a worker said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The strategy's name.
    pub name: String,
    /// Variants on offer, the default first.
    pub variants: Vec<String>,
}

/// A running worker. Dropping it kills it with all its descendants.
pub struct Worker {
    guard: Guard,
    child: Child,
    marks: Marks,
    /// Requests to the thread that writes them: a worker that does not read must not stop the runner.
    requests: Sender<String>,
    answers: Receiver<Answer>,
    log: Log,
    oom_kills: OomKills,
    start_s: f64,
    hello: Hello,
    ended: bool,
}

impl Worker {
    /// Spawns the worker in a process group of its own and greets it. `timeout` is for all of this.
    ///
    /// A program that does not exist is [`Status::Unavailable`].
    pub fn start(launch: &Launch, guard: &Guard, timeout: Duration) -> Result<Worker, WorkerError> {
        if guard.is_interrupted() {
            return Err(WorkerError::interrupted());
        }
        let begin = Instant::now();
        let mut worker = Worker::spawn(launch, guard)?;
        let reply = worker.request(&Request::Hello { version: PROTOCOL_VERSION }, timeout)?;
        let Reply::Hello { version, name, variants } = reply else { unreachable!("request has checked the reply") };
        if version != PROTOCOL_VERSION {
            let versions = format!("speaks protocol version {version}, this runner {PROTOCOL_VERSION}");
            return Err(WorkerError::new(Status::Failed, format!("worker `{name}` {versions}: rebuild the older")));
        }
        worker.hello = Hello { name, variants };
        worker.start_s = begin.elapsed().as_secs_f64();
        Ok(worker)
    }

    /// Spawns the process; nothing is asked yet.
    fn spawn(launch: &Launch, guard: &Guard) -> Result<Worker, WorkerError> {
        let failed = |what: &str, error: io::Error| WorkerError::new(Status::Failed, format!("{what}: {error}"));
        let pipe = || io::pipe().map_err(|error| failed("no pipe to the worker", error));
        let (replies, stdout, stderr) = (pipe()?, pipe()?, pipe()?);

        let mut marks = Marks { token: new_token(), group: None };
        let mut command = Command::new(&launch.program);
        command.env_clear().envs(variables::of_user());
        command.args(&launch.args).envs(launch.env.iter().map(|(name, value)| (name, value)));
        command.envs(variables::of_runner(launch.threads, launch.allocator));
        command.env(REPLY_FD, REPLY_DESCRIPTOR.to_string()).env(TOKEN, &marks.token);
        command.stdin(Stdio::piped()).stdout(stdout.1).stderr(stderr.1).process_group(0);
        let mapping = FdMapping { parent_fd: replies.1.into(), child_fd: REPLY_DESCRIPTOR };
        command.fd_mappings(vec![mapping]).expect("one mapping can't collide");

        let log = Log::start(&launch.log, stdout.0, stderr.0)
            .map_err(|error| failed(&format!("log {}", launch.log.display()), error))?;
        let oom_kills = OomKills::read();
        guard.register(&marks).map_err(|error| failed("no guard for the worker", error))?;
        let spawned = Confined::to(&launch.cpus)
            .map_err(|reason| WorkerError::new(Status::Failed, reason))
            .and_then(|_confined| command.spawn().map_err(|error| spawn_error(launch, &error)));
        // The command holds the worker's ends of the pipes; as long as it does, they have no end.
        drop(command);
        let mut child = spawned.inspect_err(|_| guard.release(&marks.token))?;
        marks.group = Some(child.id() as i32);
        let requests = write_requests(child.stdin.take().expect("stdin is piped"));
        let answers = replies::read(replies.0);
        let hello = Hello { name: String::new(), variants: Vec::new() };
        let registered = guard.register(&marks);
        let worker = Worker {
            guard: guard.clone(),
            child,
            marks,
            requests,
            answers,
            log,
            oom_kills,
            start_s: 0.0,
            hello,
            ended: false,
        };
        registered.map_err(|error| failed("no guard for the worker", error))?;
        Ok(worker)
    }

    /// The worker's process id, which is also its process group.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Stops all its threads and processes until [`Worker::resume`]: it then uses no processor, whatever its libraries do
    /// while they wait. A request waits for as long.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        // The process id of one that has ended may be another's by now.
        if !self.ended {
            // ESRCH: the group is empty; the next request says how it ended.
            let _ = killpg(Pid::from_raw(self.pid()), signal);
        }
    }

    /// CPU time of all its threads so far, to the nanosecond; `None` if it is gone.
    pub fn cpu_time(&self) -> Option<Duration> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid())).ok()?;
        clock_gettime(clock).ok().map(Duration::from)
    }

    /// Seconds from before the spawn to the answer to `hello`.
    pub fn start_s(&self) -> f64 {
        self.start_s
    }

    /// What it said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks and waits for the answer, at most `timeout`. The reply is of the kind that belongs to the request.
    ///
    /// [`Reply::Error`] becomes an error, after which the worker can be asked again. After any other error the worker
    /// has been killed.
    pub fn request(&mut self, request: &Request, timeout: Duration) -> Result<Reply, WorkerError> {
        let name = request_name(request);
        if self.ended {
            return Err(WorkerError::new(Status::Failed, format!("{name}: the worker has ended already")));
        }
        match self.answers.try_recv() {
            Ok(Answer::Reply(reply)) => {
                return Err(self.broken(&format!("before {name}, it sent unasked {}", shown(&reply))));
            }
            Ok(Answer::Garbage(reason)) => return Err(self.broken(&format!("before {name}, it sent {reason}"))),
            Ok(Answer::End) | Err(_) => {}
        }
        let mut line = serde_json::to_string(request).expect("requests are plain data");
        line.push('\n');
        // Should the writer be gone, the worker is too, and that is what the wait will find.
        let _ = self.requests.send(line);
        match self.wait_for_answer(name, timeout)? {
            Reply::Error { kind, message } => Err(WorkerError::from_reply(kind, &message)),
            reply if answers(request, &reply) => Ok(reply),
            reply => Err(self.broken(&format!("to {name}, it sent {}", shown(&reply)))),
        }
    }

    fn wait_for_answer(&mut self, name: &str, timeout: Duration) -> Result<Reply, WorkerError> {
        let begin = Instant::now();
        let mut has_ended = false;
        loop {
            let patience = if has_ended { LAST_WORDS } else { TICK.min(timeout) };
            match self.answers.recv_timeout(patience) {
                Ok(Answer::Reply(reply)) => return Ok(reply),
                Ok(Answer::Garbage(reason)) => return Err(self.broken(&format!("to {name}, it sent {reason}"))),
                Ok(Answer::End) | Err(RecvTimeoutError::Disconnected) => return Err(self.gone(name, timeout, begin)),
                Err(RecvTimeoutError::Timeout) if has_ended => return Err(self.gone(name, timeout, begin)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.guard.is_interrupted() {
                self.end();
                return Err(WorkerError::interrupted());
            }
            if begin.elapsed() >= timeout {
                return Err(self.late(name, timeout));
            }
            // A process that the worker forked may hold its descriptor open, so the end of replies is not enough.
            has_ended = self.exit_status().is_some();
        }
    }

    /// Says goodbye, waits for the worker to exit with status 0, at most `timeout`, and kills what it left behind.
    pub fn finish(mut self, timeout: Duration) -> Result<(), WorkerError> {
        let begin = Instant::now();
        self.request(&Request::Bye {}, timeout)?;
        loop {
            match self.exit_status() {
                Some(WaitStatus::Exited(_, 0)) => return Ok(()),
                Some(status) => return Err(self.exited("after bye", status)),
                None if self.guard.is_interrupted() => return Err(WorkerError::interrupted()),
                None if begin.elapsed() >= timeout => return Err(self.late("exit", timeout)),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The replies have ended: the worker exits, unless it only closed the pipe.
    fn gone(&mut self, name: &str, timeout: Duration, begin: Instant) -> WorkerError {
        let closed = Instant::now();
        loop {
            match self.exit_status() {
                Some(status) => return self.exited(&format!("during {name}"), status),
                None if self.guard.is_interrupted() => {
                    self.end();
                    return WorkerError::interrupted();
                }
                None if closed.elapsed() >= LAST_WORDS * 4 || begin.elapsed() >= timeout => {
                    return self.broken(&format!("during {name}, it closed its replies"));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The worker has ended by itself.
    fn exited(&mut self, when: &str, status: WaitStatus) -> WorkerError {
        // The kernel counts a kill before the process is gone, so the counter is read after.
        let oom_killed = OomKills::read().grown_since(&self.oom_kills);
        self.end();
        WorkerError::exited(status, when, oom_killed, &self.log.last_line())
    }

    /// The worker does not keep to the protocol.
    fn broken(&mut self, what: &str) -> WorkerError {
        self.end();
        WorkerError::new(Status::Failed, format!("the worker broke the protocol: {what}"))
    }

    fn late(&mut self, name: &str, timeout: Duration) -> WorkerError {
        self.end();
        let seconds = timeout.as_secs_f64();
        WorkerError::new(Status::Timeout, format!("{name} took longer than {seconds} s; the worker was killed"))
    }

    /// How the worker ended, if it has. It stays a zombie, so that its process id can't be given to another.
    fn exit_status(&self) -> Option<WaitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(Pid::from_raw(self.pid())), flags) {
            Ok(WaitStatus::StillAlive) | Err(_) => None,
            Ok(status) => Some(status),
        }
    }

    /// Kills all that is left of the worker.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        end_all(std::slice::from_ref(&self.marks), KILL_LIMIT);
        self.guard.release(&self.marks.token);
        // Killed: this returns at once, unless the kernel holds the process in a system call; then it stays a zombie.
        if self.exit_status().is_some() {
            let _ = self.child.wait();
        }
        self.log.wait(LAST_WORDS);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Different for every worker of every runner on this machine.
fn new_token() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("{}-{count}-{now:x}", std::process::id())
}

/// A thread that writes requests, and closes the worker's stdin when the sender is dropped.
fn write_requests(mut stdin: impl Write + Send + 'static) -> Sender<String> {
    let (sender, receiver) = channel::<String>();
    std::thread::spawn(move || {
        for line in receiver {
            if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
                return;
            }
        }
    });
    sender
}

fn spawn_error(launch: &Launch, error: &io::Error) -> WorkerError {
    let status = match error.kind() {
        io::ErrorKind::NotFound => Status::Unavailable,
        io::ErrorKind::OutOfMemory => Status::OutOfMemory,
        _ => Status::Failed,
    };
    WorkerError::new(status, format!("{} can't be started: {error}", launch.program.display()))
}

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "hello",
        Request::Load { .. } => "load",
        Request::Set { .. } => "set",
        Request::Step { .. } => "step",
        Request::Epoch { .. } => "epoch",
        Request::Params { .. } => "params",
        Request::Bye {} => "bye",
    }
}

/// Whether a reply is of the kind that belongs to a request.
fn answers(request: &Request, reply: &Reply) -> bool {
    matches!(
        (request, reply),
        (Request::Hello { .. }, Reply::Hello { .. })
            | (Request::Load { .. }, Reply::Loaded { .. })
            | (Request::Set { .. }, Reply::Set {})
            | (Request::Step { .. }, Reply::Stepped { .. })
            | (Request::Epoch { .. }, Reply::Epoch { .. })
            | (Request::Params { .. }, Reply::Params { .. })
            | (Request::Bye {}, Reply::Bye {})
    )
}

/// A reply as it came, for a reason.
fn shown(reply: &Reply) -> String {
    serde_json::to_string(reply).expect("replies are plain data")
}
