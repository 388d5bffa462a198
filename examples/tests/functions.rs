//! The functions server, started as a user starts it and driven from outside.

mod server;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use server::{PATIENCE, Server, program, read_to_end, until};
use socket2::SockRef;

/// So much that no script here comes near it.
const NO_LIMIT: [&str; 2] = ["--cpu-limit-ms", "3600000"];

/// A request that does not end by itself within the hour.
const ENDLESS: &[u8] = b"POST /run/t HTTP/1.1\r\nhost: t\r\ncontent-length: 7\r\n\r\nloop {}";

#[test]
fn a_script_is_run_and_its_value_is_returned() {
    let server = Server::start(&[]);
    for (script, value) in [
        ("40 + 2", "42"),
        ("", ""),
        ("let s = \"\"; for i in 0..3 { s += i; } s", "012"),
        ("fn double(x) { x * 2 } [1, 2].map(|x| double(x))", "[2, 4]"),
        ("print(1); debug(2); \"quiet\"", "quiet"),
    ] {
        let answer = server.run("t", script);
        assert_eq!((answer.status, &*answer.body), (200, value), "{script}");
    }
}

#[test]
fn what_is_wrong_with_a_script_is_said_with_its_position() {
    let server = Server::start(&[]);
    for (script, error, line, column) in [
        ("let x = ;", "parse_error", 1, 9),
        ("1 +\n;", "parse_error", 2, 1),
        ("let x = 1;\nx.nothing()", "runtime_error", 2, 3),
        ("fn f() {\n  throw 1 }\nf()", "runtime_error", 2, 3),
        ("eval(\"1\")", "parse_error", 1, 1),
        ("import \"std\" as s;", "parse_error", 1, 1),
        ("sleep(3600)", "runtime_error", 1, 1),
        ("sleep(3600.0)", "runtime_error", 1, 1),
    ] {
        let answer = server.run("t", script);
        assert_eq!((answer.status, answer.error().as_str()), (400, error), "{script}: {}", answer.body);
        let body = answer.json();
        assert_eq!((body["line"].as_u64(), body["column"].as_u64()), (Some(line), Some(column)), "{script}");
    }
    assert_eq!(
        server.raw(b"POST /run/t HTTP/1.0\r\ncontent-length: 1\r\n\r\n\xff").lines().next(),
        Some("HTTP/1.0 400 Bad Request")
    );
}

#[test]
fn a_script_that_does_not_end_is_ended_at_its_limit() {
    let server = Server::start(&["--cpu-limit-ms", "20"]);
    let long_to_parse = "a;".repeat(500_000);
    let scripts = [
        "loop {}",
        "loop { try { loop {} } catch { loop {} } }",
        "fn f() { loop {} } f()",
        "[1].map(|x| { loop {} })",
        "let a = []; loop { a = [a]; if a.len() > 5 { a = []; } a = []; }",
        &long_to_parse,
    ];
    for script in scripts {
        let answer = server.run("greedy", script);
        let what = &script[..script.len().min(80)];
        assert_eq!((answer.status, answer.error().as_str()), (503, "cpu_limit_exceeded"), "{what}: {}", answer.body);
        let body = answer.json();
        assert_eq!(body["tenant"], "greedy");
        assert_eq!(body["limit_ms"], 20.0);
        assert!(body["used_ms"].as_f64() >= Some(20.0), "{what}: {body}");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let tenant = server.tenant("greedy").expect("it has made requests");
    assert_eq!(tenant["requests"], scripts.len());
    assert_eq!(tenant["exceeded"], scripts.len());
    let least = 0.020 * scripts.len() as f64;
    assert!(tenant["cpu_seconds"].as_f64() >= Some(least), "{tenant}");
    until("no script is left", || server.tasks("script") == 0);
}

#[test]
fn parsing_is_stopped_at_the_limit() {
    let script = "a;".repeat(500_000);
    let unlimited = Server::start(&NO_LIMIT);
    assert_eq!(unlimited.run("t", &script).status, 400);
    let whole_ms = unlimited.tenant("t").expect("it has made a request")["cpu_seconds"].as_f64().map(|s| s * 1e3);

    let limited = Server::start(&["--cpu-limit-ms", "1"]);
    let answer = limited.run("t", &script);
    let used_ms = answer.json()["used_ms"].as_f64();
    assert!(used_ms.is_some() && used_ms < whole_ms, "{used_ms:?} of {whole_ms:?} ms: {}", answer.body);
}

#[test]
fn tenants_run_beside_each_other() {
    let server = Server::start(&["--workers", "2", "--cpu-limit-ms", "200"]);
    thread::scope(|scope| {
        for client in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..5 {
                    let answer = server.run(&format!("greedy-{client}"), "loop {}");
                    assert_eq!(answer.error(), "cpu_limit_exceeded", "{}", answer.body);
                }
            });
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = server.run(&format!("modest-{client}"), "let x = 0; for i in 0..10 { x += i; } x");
                    assert_eq!((answer.status, &*answer.body), (200, "45"));
                    assert_eq!(server.get("/hello").body, "hello\n");
                }
            });
        }
    });
    for client in 0..4 {
        let greedy = server.tenant(&format!("greedy-{client}")).expect("it has made requests");
        assert_eq!((&greedy["requests"], &greedy["exceeded"]), (&5.into(), &5.into()));
        let modest = server.tenant(&format!("modest-{client}")).expect("it has made requests");
        assert_eq!((&modest["requests"], &modest["exceeded"]), (&20.into(), &0.into()));
        // Five hundred additions against five limits of 200 ms, on whatever machine.
        assert!(modest["cpu_seconds"].as_f64() < greedy["cpu_seconds"].as_f64(), "{modest} {greedy}");
    }
}

#[test]
fn deep_recursion_ends_the_script_alone() {
    let server = Server::start(&NO_LIMIT);
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
    for script in [
        "fn f(x) { f(x + 1) } f(0)".to_owned(),
        "fn f(x) { [1].map(|y| f(y)) } f(0)".to_owned(),
        "fn f(x) { call(Fn(\"f\"), x) } f(0)".to_owned(),
        "fn f(x) { ((((((1 + f(x + 1))))))) } f(0)".to_owned(),
        deep("(", ")"),
        deep("[", "]"),
        deep("{", "}"),
        deep("!", ""),
        deep("abs(", ")"),
        deep("if true {", "}"),
        deep("if true {} else ", ""),
        deep("`${", "}`"),
        format!("let a = #{{}}; a{}", ".a".repeat(20_000)),
        format!("1{}", "+1".repeat(20_000)),
        "let a = []; loop { a = [a]; }".to_owned(),
        "let a = #{}; loop { a = #{a: [a]}; }".to_owned(),
        "let a = [0]; loop { a[0] = a; }".to_owned(),
    ] {
        let answer = server.run("t", &script);
        let what = &script[..script.len().min(60)];
        assert!(["parse_error", "runtime_error"].contains(&&*answer.error()), "{what}: {}", answer.body);
    }
    // As deep as it may be, at the bottom of as many calls: compared, converted and dropped.
    let deepest = "fn f(x) { if x > 0 { return f(x - 1); } let a = []; for i in 0..1000 { a = [#{a: a}]; } \
                   let b = a; let s = a.to_string(); a == b } f(25)";
    let answer = server.run("t", deepest);
    assert_eq!((answer.status, &*answer.body), (200, "true"));
    assert!(server.is_healthy());
}

#[test]
fn huge_allocations_end_the_script_alone() {
    let server = Server::start(&NO_LIMIT);
    let many_arguments = format!("let a = []; a.pad(1000, 1); f(1{})", ", a".repeat(100_000));
    let many_temporaries = format!("let a = []; a.pad(1000, 1); `{}`", "${a}".repeat(1000));
    let many_variables = (0..300).map(|i| format!("let v{i} = 1;")).collect::<String>();
    for (script, error) in [
        ("let s = \"x\"; loop { s += s; }", "runtime_error"),
        ("let s = \"x\"; s.pad(1000000000, \"y\")", "runtime_error"),
        ("let a = [1]; loop { a += a; }", "runtime_error"),
        ("let a = []; loop { a.push(1); }", "runtime_error"),
        ("let a = []; a.pad(1000000000, 1)", "runtime_error"),
        ("blob(1000000000)", "runtime_error"),
        ("let m = #{}; let i = 0; loop { m[i.to_string()] = i; i += 1; }", "memory_limit_exceeded"),
        ("let a = []; let s = \"x\"; s.pad(100000, \"y\"); loop { a.push(s + a.len()); }", "runtime_error"),
        (&many_temporaries, "runtime_error"),
        (&many_variables, "runtime_error"),
        (&many_arguments, "memory_limit_exceeded"),
    ] {
        let answer = server.run("t", script);
        let what = &script[..script.len().min(60)];
        assert_eq!((answer.status, answer.error().as_str()), (400, error), "{what}: {}", answer.body);
    }
    assert!(server.is_healthy());
}

#[test]
fn a_body_above_1_mib_is_refused() {
    let server = Server::start(&NO_LIMIT);
    let full = " ".repeat(1 << 20);
    assert_eq!(server.run("t", &full).status, 200);
    assert_eq!(server.run("t", &format!("{full} ")).status, 413);
    assert_eq!(server.run("t", &full.repeat(3)).status, 413);

    let asks_first =
        format!("POST /run/t HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", u64::MAX / 4);
    let answer = server.raw(asks_first.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut chunked =
        b"POST /run/t HTTP/1.1\r\nhost: t\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        chunked.extend_from_slice(format!("80000\r\n{}\r\n", " ".repeat(0x80000)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = server.raw(&chunked);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // None of them has become a task.
    assert_eq!(server.tenant("t").expect("it has made requests")["requests"], 1);
}

#[test]
fn broken_requests_end_their_connection_alone() {
    let server = Server::start(&[]);
    let long_head = format!("GET /hello HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for (request, answer) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00"[..], ""),
        (b"not http\r\n\r\n", "HTTP/1.1 400"),
        (b"GET /hello\r\n\r\n", "HTTP/1.1 400"),
        (b"GET /hello HTTP/1.1\r\nbad header\r\n\r\n", "HTTP/1.1 400"),
        (b"POST /run/t HTTP/1.1\r\nhost: t\r\ncontent-length: minus\r\n\r\n", "HTTP/1.1 400"),
        (b"POST /run/t HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400"),
        (long_head.as_bytes(), ""),
    ] {
        let got = server.raw(request);
        assert!(
            got.starts_with(answer) && !got.contains(" 200 "),
            "{:?}: {got}",
            String::from_utf8_lossy(&request[..request.len().min(60)])
        );
    }
    assert!(server.is_healthy());
    until("one connection is left", || server.tasks("connection") == 1);
}

#[test]
fn requests_that_are_not_served_are_told_so() {
    let server = Server::start(&[]);
    for path in ["/", "/run", "/runt", "/hello/", "/stats/x"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.error().as_str()), (404, "not_found"), "{path}");
    }
    for path in ["/hello", "/healthz", "/stats", "/burn?ms=1"] {
        let answer = server.post(path, "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    let answer = server.get("/run/t");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));

    let longest = "a".repeat(64);
    for name in ["a", "0-9", "-", &longest] {
        assert_eq!(server.run(name, "1").status, 200, "{name}");
    }
    let too_long = "a".repeat(65);
    for name in ["", "A", "a_b", "a/b", "a%20b", "%C3%A4", &too_long] {
        let answer = server.run(name, "1");
        assert_eq!((answer.status, answer.error().as_str()), (400, "bad_tenant"), "{name}");
    }
}

#[test]
fn clients_that_vanish_leave_no_task_behind() {
    let server = Server::start(&NO_LIMIT);
    let ways: [fn(TcpStream); 3] = [
        drop,
        |stream| {
            // A reset instead of an orderly end.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("the system can");
        },
        |mut stream| {
            stream.shutdown(Shutdown::Write).expect("it is open");
            // A server that goes on with half a connection could not tell it from none.
            assert_eq!(read_to_end(&mut stream), "");
        },
    ];
    for vanish in ways {
        let mut stream = server.connect();
        stream.write_all(ENDLESS).expect("the server reads");
        until("the script runs", || server.tasks("script") == 1);
        vanish(stream);
        until("no script is left", || server.tasks("script") == 0);
        until("one connection is left", || server.tasks("connection") == 1);
    }
}

#[test]
fn slow_clients_are_not_waited_for() {
    let server = Server::start(&[]);
    thread::scope(|scope| {
        let says_nothing = scope.spawn(|| server.raw(b""));
        let half_a_head = scope.spawn(|| server.raw(b"GET /hello HTTP/1.1\r\nho"));
        let half_a_body =
            scope.spawn(|| server.raw(b"POST /run/t HTTP/1.1\r\nhost: t\r\ncontent-length: 7\r\n\r\nloop"));
        let no_second_request = scope.spawn(|| server.raw(b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n"));
        let takes_no_answer = scope.spawn(|| {
            let stream = server.connect();
            stream.set_write_timeout(Some(Duration::from_secs(1))).expect("that is a timeout");
            let requests = b"GET /stats HTTP/1.1\r\nhost: t\r\n\r\n".repeat(1000);
            // Until nothing moves any more.
            while (&stream).write_all(&requests).is_ok() {}
            stream
        });
        assert_eq!(says_nothing.join().expect("no panic"), "");
        assert!(!half_a_head.join().expect("no panic").contains("200"));
        assert!(half_a_body.join().expect("no panic").starts_with("HTTP/1.1 408"));
        assert!(no_second_request.join().expect("no panic").starts_with("HTTP/1.1 200"));
        let takes_no_answer = takes_no_answer.join().expect("no panic");
        until("one connection is left", || server.tasks("connection") == 1);
        drop(takes_no_answer);
    });
    assert_eq!(server.tasks("script"), 0);
}

#[test]
fn short_polls_reach_the_limit_too() {
    let server = Server::start(&["--cpu-limit-ms", "20"]);
    let answer = server.get("/burn?ms=5");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = server.get("/burn?x=1&ms=3600000");
    assert_eq!((answer.status, answer.error().as_str()), (503, "cpu_limit_exceeded"));
    let body = answer.json();
    assert!(body["used_ms"].as_f64() >= Some(20.0), "{body}");
    assert_eq!((&body["limit_ms"], &body["tenant"]), (&20.0.into(), &"burn".into()));
    for query in ["", "?", "?ms=", "?ms=-1", "?ms=x", "?ms=99999999999999999999"] {
        assert_eq!(server.get(&format!("/burn{query}")).error(), "bad_query", "{query}");
    }
}

#[test]
fn stats_show_tenants_tasks_and_runtime() {
    let server = Server::start(&["--workers", "3", "--cpu-limit-ms", "3600000"]);
    let mut stream = server.connect();
    stream.write_all(ENDLESS).expect("the server reads");
    until("the script runs", || server.tasks("script") == 1);
    let stats = server.get("/stats").json();
    let task = stats["tasks"].as_array().expect("tasks").iter().find(|task| task["name"] == "script");
    let task = task.expect("the script runs");
    assert!(task["id"].is_u64() && task["cpu_ms"].is_number(), "{task}");
    assert_eq!((&task["tenant"], &task["limit_ms"]), (&"t".into(), &3_600_000.0.into()));
    assert!(["running", "scheduled"].contains(&task["state"].as_str().unwrap_or_default()), "{task}");
    let tenant = &stats["tenants"][0];
    assert_eq!((&tenant["name"], &tenant["requests"], &tenant["exceeded"]), (&"t".into(), &1.into(), &0.into()));
    assert!(tenant["cpu_seconds"].is_number(), "{tenant}");
    let runtime = &stats["runtime"];
    assert_eq!(runtime["workers"], 3);
    assert!(runtime["cpu_seconds"].is_number() && runtime["tick_period_ms"].as_f64() > Some(0.0), "{runtime}");
    assert!(runtime["ticks"].is_u64() && runtime["accuracy"].is_string(), "{runtime}");
}

#[test]
fn tenants_that_are_idle_make_room_for_new_ones() {
    let server = Server::start(&NO_LIMIT);
    let mut stream = server.connect();
    stream.write_all(ENDLESS).expect("the server reads");
    until("the script runs", || server.tasks("script") == 1);
    for tenant in 0..1000 {
        assert_eq!(server.run(&format!("x{tenant}"), "1").status, 200);
    }
    let stats = server.get("/stats").json();
    assert_eq!(stats["tenants"].as_array().expect("tenants").len(), 1000);
    // The oldest of all is busy; of the others the oldest has gone.
    assert!(server.tenant("t").is_some());
    assert!(server.tenant("x0").is_none());
    assert!(server.tenant("x1").is_some());
}

#[test]
fn running_requests_are_drained_at_sigterm_and_ctrl_c() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&NO_LIMIT);
        let request = "let x = 0; for i in 0..300000 { x += 1; } x";
        let request = format!("POST /run/t HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{request}", request.len());
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).expect("the server reads");
        until("the request is there", || server.tenant("t").is_some());
        server.signal(signal);
        let answer = read_to_end(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("300000"), "{answer}");
        assert_eq!(server.ended().code(), Some(0));
        assert!(TcpStream::connect(server.address).is_err());
    }
}

#[test]
fn requests_that_do_not_end_do_not_keep_the_server() {
    let mut server = Server::start(&NO_LIMIT);
    let mut stream = server.connect();
    stream.write_all(ENDLESS).expect("the server reads");
    until("the script runs", || server.tasks("script") == 1);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    read_to_end(&mut stream);
}

#[test]
fn without_descriptors_left_the_server_waits_for_some() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 32; exec \"$0\" --listen 127.0.0.1:0 2>/dev/null"]).arg(program());
    let server = Server::start_as(command);
    let all: Vec<_> = (0..64).map(|_| server.connect()).collect();
    // Those that were accepted are served.
    let mut first = &all[0];
    first.write_all(b"GET /hello HTTP/1.0\r\n\r\n").expect("the server reads");
    assert!(read_to_end(&mut all[0].try_clone().expect("a descriptor")).contains("hello"));
    drop(all);
    assert!(server.is_healthy());
}

#[test]
fn a_start_that_cannot_be_is_refused_with_status_2() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    for (options, message) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["extra"], "extra"),
        (&["--workers", "0"], "--workers"),
        (&["--workers", "-1"], "-1"),
        (&["--workers", "many"], "--workers"),
        (&["--cpu-limit-ms", "0"], "--cpu-limit-ms"),
        (&["--cpu-limit-ms", "-5"], "-5"),
        (&["--cpu-limit-ms", "soon"], "--cpu-limit-ms"),
        (&["--cpu-limit-ms", "99999999999999999999"], "--cpu-limit-ms"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--listen", &taken], &taken),
    ] {
        let output = start(options);
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(message), "{options:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{options:?}");
    }
    let help = start(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in ["--listen", "--workers", "--cpu-limit-ms", "127.0.0.1:8080", "50"] {
        assert!(help.contains(option), "{help}");
    }
}

/// Runs the program to its end.
fn start(options: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(program()).args(options);
    command.output().expect("the program starts")
}
