//! A worker that fails in a chosen way at a chosen moment: `faulty_worker FAULT STAGE NAME [GOOD_WORKER]`.
//!
//! Until then it answers as NAME: by itself with made-up replies, or truly, by passing the requests on to GOOD_WORKER.
//! STAGE is a request's name, or `start` for before the first. The faults are the match arms of `Faulty::serve` and
//! `Faulty::fail`; those of `Faulty::wrong_as_timed`, whatever the STAGE, are right in the gate's steps and short epochs, and
//! wrong as they are timed.

#![expect(clippy::zombie_processes, reason = "to leave processes behind is the point")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use dpsgd_core::{Dataset, Description, ModelSpec, Params, Targets};
use dpsgd_protocol::messages::{ErrorKind, PROTOCOL_VERSION, Reply, Request};
use dpsgd_protocol::schedule::Schedule;
use dpsgd_protocol::{REPLY_FD, checksum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

/// No process of this program lives longer, whatever becomes of the tests.
const LIFETIME: Duration = Duration::from_secs(90);
/// Steps of an epoch that is left whole: the gate's own have no more.
const WHOLE_STEPS: usize = 3;
/// The faults of `Faulty::wrong_as_timed`.
const AS_TIMED: [&str; 6] = [
    "skips-a-step-of-an-epoch",
    "repeats-a-step-of-an-epoch",
    "loses-the-last-step",
    "nan-in-an-epoch",
    "clock-5-percent-fast",
    "describes-itself-differently-when-timed",
];
/// Bytes of a flood, over all.
const FLOOD: usize = 100 << 20;

fn main() -> ExitCode {
    std::thread::spawn(|| {
        std::thread::sleep(LIFETIME);
        std::process::exit(9);
    });
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["helper", kind, ..] => help(kind),
        [fault, stage, name, ..] => Faulty::new(fault, stage, name, args.get(3).copied()).serve(),
        _ => {
            eprintln!("usage: faulty_worker FAULT STAGE NAME [GOOD_WORKER]");
            ExitCode::from(2)
        }
    }
}

/// What a helper process does: it stays, one way or another.
fn help(kind: &str) -> ExitCode {
    match kind {
        "stubborn" => {
            signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::new(AtomicBool::new(false))).unwrap();
        }
        "session" => {
            setsid().unwrap();
        }
        // A daemon: the one that stays is in another session and has no parent.
        "daemon" => {
            setsid().unwrap();
            helper("stubborn").spawn().unwrap();
            return ExitCode::SUCCESS;
        }
        _ => panic!("helper {kind}"),
    }
    println!("helper ready");
    hang()
}

/// How to start a helper.
fn helper(kind: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // The name of this worker, by which the tests find all its processes.
    let marker = std::env::args().nth(3).unwrap_or_default();
    command.args(["helper", kind, &marker]);
    command
}

/// Waits until a helper's stdout says that it is ready; the helper's own helpers inherit that stdout.
fn wait_until_ready(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "helper ready\n");
    child
}

/// Counts in a file, one byte each: how many there are with this one.
fn one_more(file: &str) -> u64 {
    File::options().create(true).append(true).open(file).unwrap().write_all(b".").unwrap();
    std::fs::metadata(file).unwrap().len()
}

fn hang() -> ! {
    loop {
        std::thread::sleep(LIFETIME);
    }
}

struct Faulty<'a> {
    fault: &'a str,
    stage: &'a str,
    name: &'a str,
    replies: File,
    /// By the fault `stale`.
    first_schedule: Option<PathBuf>,
    /// By the fault `hang-in`: which process of its kind this is, and which epoch request of it.
    process: u64,
    epoch: u64,
    /// By the fault `nan-in-an-epoch`: the model, and whether a long epoch was run since the parameters were last set.
    model: Option<ModelSpec>,
    spoilt: bool,
    /// The worker that knows the answers, and its replies.
    good: Option<(Child, ChildStdin, BufReader<io::PipeReader>)>,
}

impl<'a> Faulty<'a> {
    fn new(fault: &'a str, stage: &'a str, name: &'a str, good: Option<&str>) -> Self {
        let descriptor = std::env::var(REPLY_FD).expect("started by a runner");
        let replies = File::options().write(true).open(format!("/dev/fd/{descriptor}")).unwrap();
        let good = good.map(|program| {
            let (reader, writer) = io::pipe().unwrap();
            let mut command = Command::new(program);
            let mapping = FdMapping { parent_fd: writer.into(), child_fd: 3 };
            let mut child = command.fd_mappings(vec![mapping]).unwrap().stdin(Stdio::piped()).spawn().unwrap();
            let requests = child.stdin.take().unwrap();
            (child, requests, BufReader::new(reader))
        });
        let process = fault.rsplit_once("hang-in=").map_or(0, |(_, place)| one_more(place.split_once(':').unwrap().1));
        Faulty {
            fault,
            stage,
            name,
            replies,
            first_schedule: None,
            process,
            epoch: 0,
            model: None,
            spoilt: false,
            good,
        }
    }

    fn serve(mut self) -> ExitCode {
        if self.stage == "start" {
            self.fail(None);
        }
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let request: Request = serde_json::from_str(&line).unwrap();
            let stage = serde_json::to_value(&request).unwrap()["request"].as_str().unwrap().to_string();
            let reply = match self.fault {
                "skip" if stage == self.stage => made_up(&request, self.name),
                "stale" | "other-data" if stage == self.stage => {
                    let other = self.replace(request.clone());
                    self.right_reply(&other, &serde_json::to_string(&other).unwrap())
                }
                _ => self.wrong_as_timed(&request).unwrap_or_else(|| self.right_reply(&request, &line)),
            };
            let reply = if stage == self.stage { self.fail(Some(reply)) } else { Some(reply) };
            if let Some(reply) = reply {
                self.send(&reply);
            }
            if matches!(request, Request::Bye {}) {
                return ExitCode::from(if self.fault == "bad-exit" { 4 } else { 0 });
            }
        }
        ExitCode::SUCCESS
    }

    /// The reply to a request in which a fault of timed processes shows; `None` if this is not such a fault or request.
    fn wrong_as_timed(&mut self, request: &Request) -> Option<Reply> {
        match (self.fault, request) {
            ("skips-a-step-of-an-epoch", Request::Epoch { schedule, repeat }) => {
                Some(self.epoch(schedule, *repeat, |steps| {
                    steps.remove(WHOLE_STEPS / 2);
                }))
            }
            ("loses-the-last-step", Request::Epoch { schedule, repeat }) => {
                Some(self.epoch(schedule, *repeat, |steps| {
                    steps.pop();
                }))
            }
            ("repeats-a-step-of-an-epoch", Request::Epoch { schedule, repeat }) => {
                Some(self.epoch(schedule, *repeat, |steps| steps.insert(WHOLE_STEPS, steps[WHOLE_STEPS - 1])))
            }
            ("clock-5-percent-fast", Request::Epoch { .. }) => {
                let mut reply = self.right_reply(request, &serde_json::to_string(request).unwrap());
                if let Reply::Epoch { epochs_s, .. } = &mut reply {
                    epochs_s.iter_mut().for_each(|seconds| *seconds *= 0.95);
                }
                Some(reply)
            }
            ("nan-in-an-epoch", _) => Some(self.with_a_nan(request)),
            ("describes-itself-differently-when-timed", Request::Load { dataset, .. }) => {
                // The gate's files are in folders of their own.
                let timed = dataset.parent().is_some_and(|folder| !folder.ends_with("reference"));
                let mut reply = self.right_reply(request, &serde_json::to_string(request).unwrap());
                if let (Reply::Loaded { description, .. }, true) = (&mut reply, timed) {
                    description.versions.insert("precision".into(), "bf16".into());
                }
                Some(reply)
            }
            _ => None,
        }
    }

    /// The good worker's reply to an epoch of other steps than it was sent, with counts and checksum as if they were the
    /// right ones. `change` gets the numbers of the steps; epochs of up to [`WHOLE_STEPS`] steps stay as they are.
    fn epoch(&mut self, sent: &Path, repeat: u32, change: impl FnOnce(&mut Vec<usize>)) -> Reply {
        let right = Schedule::load(sent).unwrap();
        let mut steps: Vec<usize> = (0..right.steps()).collect();
        if steps.len() > WHOLE_STEPS {
            change(&mut steps);
        }
        let of = |step: &usize| step * right.width..(step + 1) * right.width;
        let indices = steps.iter().flat_map(|step| right.indices[of(step)].to_vec()).collect();
        let mask = steps.iter().flat_map(|step| right.mask[of(step)].to_vec()).collect();
        let schedule = std::env::temp_dir().join(format!("{}-{}.safetensors", self.name, std::process::id()));
        Schedule { width: right.width, indices, mask }.save(&schedule).unwrap();
        let request = Request::Epoch { schedule: schedule.clone(), repeat };
        let mut reply = self.right_reply(&request, &serde_json::to_string(&request).unwrap());
        std::fs::remove_file(schedule).unwrap();
        if let Reply::Epoch { steps, examples, batches_sha256, .. } = &mut reply {
            let counted = right.mask.iter().filter(|counts| **counts).count() as u64;
            *steps = right.steps() as u64 * u64::from(repeat);
            *examples = counted * u64::from(repeat);
            *batches_sha256 = checksum::of_batches(right.batches());
        }
        reply
    }

    /// The good worker's reply, and a NaN among the parameters after an epoch of more than [`WHOLE_STEPS`] steps.
    fn with_a_nan(&mut self, request: &Request) -> Reply {
        match request {
            Request::Load { model, .. } => self.model = Some(model.clone()),
            Request::Epoch { schedule, .. } => self.spoilt |= Schedule::load(schedule).unwrap().steps() > WHOLE_STEPS,
            _ => {}
        }
        if matches!(request, Request::Load { .. } | Request::Set { params: Some(_), .. }) {
            self.spoilt = false;
        }
        let reply = self.right_reply(request, &serde_json::to_string(request).unwrap());
        if let (Request::Params { path }, Some(model), true) = (request, &self.model, self.spoilt) {
            let mut params = Params::load(path, model).unwrap();
            params.tensors[0].values[0] = f32::NAN;
            params.save(path).unwrap();
        }
        reply
    }

    /// What the good worker is asked in place of `request`: the first batches ever seen, or a data set whose last target
    /// is another.
    fn replace(&mut self, request: Request) -> Request {
        match request {
            Request::Epoch { schedule, repeat } => {
                Request::Epoch { schedule: self.first_schedule.get_or_insert(schedule).clone(), repeat }
            }
            Request::Load { model, params, dataset, dp, settings } => {
                let mut data = Dataset::load(&dataset).unwrap();
                match &mut data.targets {
                    Targets::Class(classes) => *classes.last_mut().unwrap() ^= 1,
                    Targets::Value(values) => *values.last_mut().unwrap() += 1.0,
                }
                let dataset = dataset.with_extension("other");
                data.save(&dataset).unwrap();
                Request::Load { model, params, dataset, dp, settings }
            }
            other => other,
        }
    }

    fn send(&mut self, reply: &Reply) {
        let mut line = serde_json::to_string(reply).unwrap();
        line.push('\n');
        self.replies.write_all(line.as_bytes()).unwrap();
    }

    /// Does the damage; what is then still to be answered, if anything.
    fn fail(&mut self, reply: Option<Reply>) -> Option<Reply> {
        let error = |kind, message: &str| Some(Reply::Error { kind, message: message.into() });
        match self.fault.split_once('=').unwrap_or((self.fault, "")) {
            ("none" | "bad-exit" | "skip" | "stale" | "other-data", _) => return reply,
            (fault, _) if AS_TIMED.contains(&fault) => return reply,
            ("one-thread-more", _) => {
                let Some(Reply::Loaded { load_s, data_sha256, mut description, kernels }) = reply else {
                    panic!("only what is loaded has threads")
                };
                description.threads += 1;
                return Some(Reply::Loaded { load_s, data_sha256, description, kernels });
            }
            ("crash", _) => {
                eprintln!("Traceback (most recent call last):\nValueError: the tests asked for it\n");
                std::process::exit(3);
            }
            ("memory-crash", _) => {
                eprintln!("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc");
                std::process::abort();
            }
            ("killed", _) => {
                kill(Pid::this(), Signal::SIGKILL).unwrap();
                hang()
            }
            ("hang", _) => hang(),
            ("garbage", _) => self.replies.write_all(b"100% |======| \xf0\x9f\xa4\x96 <not json>\n").unwrap(),
            ("cut", _) => {
                self.replies.write_all(b"{\"reply\":\"ste").unwrap();
                std::process::exit(0);
            }
            ("huge", _) => {
                let block = vec![b'x'; 1 << 20];
                // Until nobody listens any more.
                while self.replies.write_all(&block).is_ok() {}
                hang()
            }
            ("babble", _) => loop {
                self.send(&Reply::Set {});
            },
            ("wrong-reply", _) => return Some(Reply::Params { path: "/nowhere".into() }),
            ("version", _) => {
                let version = PROTOCOL_VERSION + 1;
                return Some(Reply::Hello { version, name: self.name.into(), variants: vec![] });
            }
            ("close", _) => {
                // Closing what was inherited takes unsafe code; to exec something else does it as well.
                let error = Command::new("/bin/sh").args(["-c", "exec 3>&-; sleep 60", self.name]).exec();
                panic!("{error}");
            }
            ("unsupported", _) => return error(ErrorKind::Unsupported, "no LSTM here"),
            ("out-of-memory", _) => return error(ErrorKind::OutOfMemory, "the device is full"),
            ("memory-error", _) => return error(ErrorKind::Failed, "MemoryError: Unable to allocate 64.0 GiB"),
            ("failed", _) => return error(ErrorKind::Failed, "boom:\nno room left in the zoom module"),
            ("flood", _) => {
                let line = "W0000 a warning that repeats itself again and again and again and again\n".repeat(1000);
                (0..FLOOD / line.len()).for_each(|_| io::stderr().write_all(line.as_bytes()).unwrap());
                eprintln!("the flood is over");
                return reply;
            }
            ("print", _) => {
                println!("{{\"reply\":\"set\"}}\nINFO: stdout is not for replies");
                return reply;
            }
            ("spin", _) => {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
                return reply;
            }
            ("sleep", milliseconds) => {
                std::thread::sleep(Duration::from_millis(milliseconds.parse().unwrap()));
                return reply;
            }
            // Helpers, then one of the faults above with them around.
            ("forks", then) => {
                wait_until_ready(helper("stubborn"));
                wait_until_ready(helper("session"));
                let mut daemon = wait_until_ready(helper("daemon"));
                daemon.wait().unwrap();
                self.fault = then;
                return self.fail(reply);
            }
            // `COUNT:FILE`: hangs the COUNTth time that any process gets here; FILE keeps the count, one byte each.
            ("hang-on", count_and_file) => {
                let (count, file) = count_and_file.split_once(':').unwrap();
                if one_more(file) == count.parse::<u64>().unwrap() {
                    hang();
                }
                return reply;
            }
            // `PROCESS.EPOCH:FILE`: hangs in that epoch request of that process; FILE counts processes, the gate's is 1.
            ("hang-in", place_and_file) => {
                self.epoch += 1;
                let (process, epoch) = place_and_file.split_once(':').unwrap().0.split_once('.').unwrap();
                if (self.process, self.epoch) == (process.parse().unwrap(), epoch.parse().unwrap()) {
                    hang();
                }
                return reply;
            }
            // A helper that neither group nor environment gives away, then another fault.
            ("nameless", then) => {
                let mut nameless = helper("session");
                nameless.env_clear();
                wait_until_ready(nameless);
                self.fault = then;
                return self.fail(reply);
            }
            (fault, _) => panic!("unknown fault {fault}"),
        }
        None
    }

    /// The right reply: made up, or the good worker's under our name.
    fn right_reply(&mut self, request: &Request, line: &str) -> Reply {
        let Some((_, requests, replies)) = &mut self.good else { return made_up(request, self.name) };
        writeln!(requests, "{line}").unwrap();
        let mut answer = String::new();
        replies.take(1 << 20).read_line(&mut answer).unwrap();
        match serde_json::from_str(&answer).unwrap() {
            Reply::Hello { version, .. } => Reply::Hello { version, name: self.name.into(), variants: vec![] },
            Reply::Loaded { load_s, data_sha256, description, kernels } => {
                let description = Description { name: self.name.into(), ..description };
                Reply::Loaded { load_s, data_sha256, description, kernels }
            }
            reply => reply,
        }
    }
}

fn made_up(request: &Request, name: &str) -> Reply {
    let name = name.to_string();
    match request {
        Request::Hello { version } => Reply::Hello { version: *version, name, variants: vec!["only".into()] },
        Request::Load { settings, .. } => {
            let description = Description {
                name,
                variant: None,
                versions: Default::default(),
                device: "cpu".into(),
                threads: settings.threads,
                rng: "none".into(),
            };
            Reply::Loaded { load_s: 0.0, data_sha256: String::new(), description, kernels: None }
        }
        Request::Set { .. } => Reply::Set {},
        Request::Step { .. } => Reply::Stepped { step_s: 0.001, non_finite_examples: 0 },
        Request::Epoch { .. } => Reply::Epoch {
            epochs_s: vec![0.001],
            first_step_s: None,
            steps: 1,
            examples: 1,
            batches_sha256: String::new(),
            non_finite_examples: 0,
        },
        Request::Params { path } => Reply::Params { path: path.clone() },
        Request::Bye {} => Reply::Bye {},
    }
}
