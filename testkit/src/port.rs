//! Ports that two test processes on one machine never get both.

use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux' range for outgoing connections, so that a server can be restarted on its port.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on 127.0.0.1, claimed against every other testkit on this machine until dropped.
///
/// The claim is an abstract socket name in the kernel instead of a file, so it cannot outlive the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixListener,
}

impl Port {
    /// Claims an unused port.
    ///
    /// # Panics
    /// When all 12,000 ports of the range are taken.
    pub fn claim() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // processes start at different places, so that they rarely compete
        let start = (u64::from(std::process::id()) * 61 % u64::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + (start + step) % COUNT;
            let name = format!("prompt-rollback-testkit-port-{number}");
            let Ok(addr) = SocketAddr::from_abstract_name(name) else {
                continue;
            };
            let Ok(claim) = UnixListener::bind_addr(&addr) else {
                continue;
            };
            // not by listening there: a child that another thread is just starting would keep the port open until it
            // executes its program
            if TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_err() {
                return Self { number, _claim: claim };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// A port that stays claimed while this process lives, for servers that the testkit does not start.
pub fn free_port() -> u16 {
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::claim();
    let number = port.number();
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(port);
    number
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_claimed_port_can_be_listened_on_while_other_threads_start_programs() {
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        Command::new("true").status().expect("true");
                    }
                });
            }
            let failed =
                (0..1_000).filter(|_| TcpListener::bind(("127.0.0.1", Port::claim().number())).is_err()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(failed, 0);
        });
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_handed_out() {
        let taken = Port::claim();
        let number = taken.number();
        let listener = TcpListener::bind(("127.0.0.1", number)).expect("a free port");
        drop(taken);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_ok());
        assert!((0..50).all(|_| Port::claim().number() != number));
        drop(listener);
    }
}
