//! A functions server for a test: the built program, on a port that the system chooses.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::{Agent, Body, http::Response};

/// Far more than anything here takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The program, which `cargo test` has built beside this test.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let program = test.parent().and_then(|deps| deps.parent()).expect("it is in target/PROFILE/deps");
    let program = program.join("examples/functions");
    assert!(program.exists(), "{} is not there: `cargo test -p stipend-examples` builds it", program.display());
    program
}

/// One that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    agent: Agent,
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["--listen", "127.0.0.1:0"]).args(options);
        Self::start_as(command)
    }

    /// Starts it by a command that prints what the server prints.
    pub(crate) fn start_as(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints a line");
        let address = line.trim().strip_prefix("listening on http://").expect("it says where it listens");
        let address = address.parse().expect("that is an address");
        let agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        Self { child, address, agent }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Answer::of(self.agent.get(self.url(path)).call().expect("there is an answer"))
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        Answer::of(self.agent.post(self.url(path)).send(body).expect("there is an answer"))
    }

    pub(crate) fn run(&self, tenant: &str, script: &str) -> Answer {
        self.post(&format!("/run/{tenant}"), script)
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.get("/healthz").status == 200
    }

    /// The live tasks of this name.
    pub(crate) fn tasks(&self, name: &str) -> usize {
        let stats = self.get("/stats").json();
        let tasks = stats["tasks"].as_array().expect("stats have tasks");
        tasks.iter().filter(|task| task["name"] == name).count()
    }

    /// What is known of a tenant.
    pub(crate) fn tenant(&self, name: &str) -> Option<Value> {
        let stats = self.get("/stats").json();
        let tenants = stats["tenants"].as_array().expect("stats have tenants");
        tenants.iter().find(|tenant| tenant["name"] == name).cloned()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("that is a timeout");
        stream
    }

    /// Sends these bytes on a connection of their own, and returns what comes back until the server closes it.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may answer and close before it has read everything.
        let _ = std::io::Write::write_all(&mut stream, request);
        read_to_end(&mut stream)
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is a kill command").success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server ends", || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    headers: ureq::http::HeaderMap,
}

impl Answer {
    fn of(mut response: Response<Body>) -> Self {
        Self {
            status: response.status().as_u16(),
            body: response.body_mut().read_to_string().expect("the body arrives"),
            headers: response.headers().clone(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The field `error`.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Reads until the server closes the connection, in whatever way.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("the server has not closed the connection after {:?}", start.elapsed());
            }
            Err(_reset) => break,
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Waits for something to become true.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not so after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
