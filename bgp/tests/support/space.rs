//! Network namespaces, and what runs in them. Everything is gone when its value is dropped.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// `true` if the test has to be skipped, said in one line; a failure where nothing may be skipped.
pub fn skipped(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !PathBuf::from(program).exists());
    // SAFETY: takes nothing and cannot fail.
    let reason = match (unsafe { libc::geteuid() }, missing) {
        (0, None) => return false,
        (0, Some(program)) => format!("{program} is not installed"),
        _ => "not root".into(),
    };
    assert!(std::env::var_os("IRONCAST_NO_SKIP").is_none(), "skipping is forbidden: {reason}");
    eprintln!("skipped: {reason}");
    true
}

pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("program starts");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace.
pub struct Space(pub String);

impl Space {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("icbfd{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Self(name)
    }

    pub fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.0));
    }

    /// `program arguments…` in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    /// A router's daemon, in the real-time class like our driver, so that a busy machine does not make it late.
    pub fn daemon(&self, program: &str) -> Command {
        let mut command = self.command("chrt");
        command.args(["--fifo", "40", program]);
        command
    }

    /// Runs `body` on a thread inside.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("namespace exists");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the descriptor is open; only this thread moves.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
                body()
            });
            thread.join().expect("body does not panic")
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Joins two namespaces; each end gets the addresses `10.77.NET.HOST/24` and `fd77:NET::HOST/64`.
pub fn link(a: (&Space, &str, u8), b: (&Space, &str, u8), net: u8) {
    let ((from, from_device, _), (to, to_device, _)) = (a, b);
    from.ip(&format!("link add {from_device} type veth peer name {to_device} netns {}", to.0));
    for (space, device, host) in [a, b] {
        space.ip(&format!("addr add 10.77.{net}.{host}/24 dev {device}"));
        space.ip(&format!("addr add fd77:{net}::{host}/64 dev {device} nodad"));
        space.ip(&format!("link set {device} up"));
    }
}

/// A child that is killed with its value, and its folder removed.
pub struct Process(pub Child);

impl Process {
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no pointers; the child has not been waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder for sockets and configuration.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("folder can be made");
        Self(path)
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("file can be written");
        path
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
