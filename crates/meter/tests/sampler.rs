//! The sampler against children whose use is known.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dpsgd_meter::Sampler;

const MIB: u64 = 1 << 20;
const INTERVAL: Duration = Duration::from_millis(20);

/// What this executable does in the child: the value of the variable `ROLE`.
const ROLE: &str = "DPSGD_METER_TEST_ROLE";

/// The child of the tests below. As a test of its own it does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let ready = || println!("\nready");
    match role.split_once(' ') {
        Some(("allocate", mebibytes)) => {
            drop(allocate(mebibytes));
            ready();
        }
        Some(("hold", mebibytes)) => {
            let _block = allocate(mebibytes);
            ready();
            wait_for_stdin();
        }
        Some(("burn", milliseconds)) => {
            ready();
            wait_for_stdin();
            burn(Duration::from_millis(milliseconds.parse().unwrap()));
            ready();
        }
        Some(("spawn", role)) => {
            let (mut child, _stdout) = spawn(role);
            ready();
            wait_for_stdin();
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        _ => panic!("unknown role {role}"),
    }
    wait_for_stdin();
}

/// Memory that was written to, and so is resident.
fn allocate(mebibytes: &str) -> Vec<u8> {
    std::hint::black_box(vec![1; mebibytes.parse::<usize>().unwrap() * MIB as usize])
}

/// Takes CPU time until the kernel has counted so much of it.
fn burn(time: Duration) {
    let ticks = || {
        let stat = procfs::process::Process::myself().unwrap().stat().unwrap();
        Duration::from_millis((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second())
    };
    let begin = ticks();
    let mut sum = 0u64;
    while ticks() - begin < time {
        (0..100_000u64).for_each(|i| sum = std::hint::black_box(sum.wrapping_add(i)));
    }
}

fn wait_for_stdin() {
    let mut byte = [0];
    let _ = std::io::stdin().lock().read(&mut byte).unwrap();
}

/// Starts the child and returns when it is ready, with its stdout.
fn spawn(role: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture"]).env(ROLE, role);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    wait_until_ready(&mut stdout);
    (child, stdout)
}

fn wait_until_ready(stdout: &mut impl BufRead) {
    let mut line = String::new();
    while line != "ready\n" {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the child ended early");
    }
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn memory_that_was_freed_before_the_first_look_still_counts() {
    let (child, _stdout) = spawn("allocate 100");
    let usage = Sampler::start(child.id() as i32, INTERVAL).stop();
    end(child);
    let mebibytes = usage.peak_rss_bytes.unwrap() / MIB;
    assert!((100..150).contains(&mebibytes), "{mebibytes} MiB");
    assert_eq!(usage.gpu, None);
}

#[test]
fn the_memory_of_the_spawner_is_not_the_childs() {
    let block = std::hint::black_box(vec![1u8; 200 * MIB as usize]);
    let (child, _stdout) = spawn("allocate 10");
    let usage = Sampler::start(child.id() as i32, INTERVAL).stop();
    end(child);
    let mebibytes = usage.peak_rss_bytes.unwrap() / MIB;
    assert!((10..60).contains(&mebibytes), "{mebibytes} MiB beside {} here", block.len());
}

#[test]
fn cpu_time_counts_from_the_mark() {
    let (mut child, mut stdout) = spawn("burn 200");
    let mut sampler = Sampler::start(child.id() as i32, INTERVAL);
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    wait_until_ready(&mut stdout);
    let before = sampler.cpu_time().unwrap();
    assert!((0.18..1.0).contains(&before), "{before} s");
    sampler.mark();
    let usage = sampler.stop();
    end(child);
    assert!(usage.cpu_s < 0.05, "{} s after the mark", usage.cpu_s);
}

#[test]
fn descendants_are_included() {
    let (child, _stdout) = spawn("spawn hold 80");
    let usage = Sampler::start(child.id() as i32, INTERVAL).stop();
    end(child);
    let mebibytes = usage.peak_rss_bytes.unwrap() / MIB;
    assert!((80..150).contains(&mebibytes), "{mebibytes} MiB");

    let (mut child, _stdout) = spawn("spawn burn 200");
    let sampler = Sampler::start(child.id() as i32, INTERVAL);
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    // The child is still there when its own child is done; what that one took is then counted as the child's.
    let begin = Instant::now();
    let mut cpu_s = 0.0;
    while cpu_s < 0.2 && begin.elapsed() < Duration::from_secs(60) {
        cpu_s = sampler.cpu_time().unwrap();
        std::thread::sleep(INTERVAL);
    }
    end(child);
    assert!((0.2..1.0).contains(&cpu_s), "{cpu_s} s");
}

#[test]
fn utilization_is_cpu_time_over_wall_time_and_threads() {
    let (mut child, mut stdout) = spawn("burn 300");
    let mut sampler = Sampler::start(child.id() as i32, INTERVAL);
    sampler.mark();
    let begin = Instant::now();
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    wait_until_ready(&mut stdout);
    let usage = sampler.stop();
    let wall_s = begin.elapsed().as_secs_f64();
    end(child);
    // The child counted 300 ms of its own; the tick before and after it are not sure.
    assert!((0.26..0.50).contains(&usage.cpu_s), "{} s", usage.cpu_s);
    let expected = usage.cpu_s / wall_s / 2.0;
    let found = usage.cpu_utilization(2).unwrap();
    assert!((found / expected - 1.0).abs() < 0.1, "{found}, not {expected}");
}

#[test]
fn a_process_that_is_gone_leaves_no_figures() {
    let (child, _stdout) = spawn("allocate 1");
    let pid = child.id() as i32;
    end(child);
    let sampler = Sampler::start(pid, INTERVAL);
    assert_eq!(sampler.cpu_time(), None);
    let usage = sampler.stop();
    assert_eq!((usage.peak_rss_bytes, usage.cpu_utilization(1)), (None, None));
}

#[test]
fn the_timeline_has_the_memory_and_cpu_time_of_every_look_in_order() {
    let (mut child, mut stdout) = spawn("burn 300");
    let sampler = Sampler::start(child.id() as i32, INTERVAL);
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    wait_until_ready(&mut stdout);
    let usage = sampler.stop();
    end(child);
    let moments = usage.timeline.moments();
    assert!(moments.len() >= 2, "{moments:?}");
    assert!(moments.windows(2).all(|pair| pair[0].at_s <= pair[1].at_s && pair[0].cpu_s <= pair[1].cpu_s));
    assert!(
        moments.iter().all(|moment| moment.rss_bytes <= usage.peak_rss_bytes.unwrap() && moment.gpu_bytes.is_none())
    );
    let burnt = moments.last().unwrap().cpu_s - moments[0].cpu_s;
    assert!((0.26..0.60).contains(&burnt), "{burnt} s");
}
