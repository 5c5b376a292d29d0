//! `up` on a clean directory: a server boots and answers ssh; Ctrl-C leaves its guest alone; the next `up` finds it.
use nix::sys::signal::Signal;
use pilvi_tests::{Site, kernel, may_run};
use std::time::Duration;

const READY: Duration = Duration::from_secs(300);

#[test]
fn up_boots_a_server_that_outlives_it() {
    if !may_run("first light") {
        return;
    }
    let site = Site::open("up").unwrap();
    let mut up = site.up(&[]).unwrap();
    let (active, _) = up.wait_line("server demo is ACTIVE", READY).unwrap();
    let (ready, _) = up.wait_line("answered ssh", READY).unwrap();
    println!("{active}\n{ready}");
    assert!(ready.contains("hostname is demo"), "{ready}");
    up.wait_line("Ctrl-C stops", READY).unwrap();
    let before = kernel::guests(&site.agent());
    let demo = site.demo().unwrap();
    let server = demo.get("/compute/v2.1/servers/detail").unwrap()["servers"][0].clone();
    assert_eq!(server["status"], "ACTIVE");
    let id = server["id"].as_str().unwrap();
    assert_eq!(before.keys().collect::<Vec<_>>(), [id], "one guest process, the server's");
    let output = site.openstack("pilvi", &["console", "log", "show", "demo"]).unwrap();
    assert!(output.contains("user data ran"), "the console has no word of the user data:\n{output}");

    let status = up.interrupt(Duration::from_secs(30)).unwrap();
    assert!(status.success(), "Ctrl-C: {status}");
    assert_eq!(kernel::guests(&site.agent()), before, "the guest outlives Ctrl-C");

    let mut again = site.up(&["--once"]).unwrap();
    let status = again.wait_exit(READY).unwrap();
    assert!(status.success(), "second up: {status}\n{}", again.said());
    assert_eq!(kernel::guests(&site.agent()), before, "the second `up` found the same guest");
    assert!(again.said().contains("hostname is demo"), "{}", again.said());
    site.finish().unwrap();
}

/// Refusals have the exit code 2, and say why and what to do.
#[test]
fn refusals_say_what_to_do() {
    if !may_run("refusals") {
        return;
    }
    let site = Site::open("refuse").unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", site.port)).unwrap();
    let mut up = site.up(&["--no-demo"]).unwrap();
    let status = up.wait_exit(Duration::from_secs(30)).unwrap();
    assert_eq!(status.code(), Some(2), "{}", up.said());
    assert!(up.said().contains("is taken") && up.said().contains("--listen"), "{}", up.said());
    drop(taken);
    let first = site.serve().unwrap();
    let mut second = site.up(&["--no-demo"]).unwrap();
    let status = second.wait_exit(Duration::from_secs(30)).unwrap();
    assert_eq!(status.code(), Some(2), "{}", second.said());
    assert!(second.said().contains("another pilvi uses"), "{}", second.said());
    first.signal(Signal::SIGTERM).unwrap();
    let mut first = first;
    assert!(first.wait_exit(Duration::from_secs(30)).unwrap().success(), "SIGTERM is a clean end");
    site.finish().unwrap();
}
