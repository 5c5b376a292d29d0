//! The guest's scripts without a guest: every one parses, and those that take foreign text apart (JSON, cloud-config,
//! DHCP leases) are run on samples. They run under BusyBox where the machine has it, since that is what the guest has.

// The helpers of a test are a test too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn guest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest").join(path)
}

/// `busybox NAME` if there is BusyBox, else the machine's own program.
fn applet(name: &str) -> Command {
    if Command::new("busybox").arg("true").status().is_ok_and(|s| s.success()) {
        let mut command = Command::new("busybox");
        command.arg(name);
        return command;
    }
    Command::new(name)
}

/// Runs an awk program of the guest on a text: what it printed, and whether it was content.
fn awk(program: &str, input: &str) -> (String, bool) {
    let mut child = applet("awk")
        .arg("-f")
        .arg(guest(program))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

#[test]
fn every_script_parses_and_tells_its_story() {
    let mut count = 0;
    for folder in ["lib", "bin", "initrd"] {
        for entry in fs::read_dir(guest(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let story = text.lines().find(|l| !l.starts_with("#!")).unwrap();
            assert!(story.starts_with("# ") && story.len() > 40, "{} needs a story", path.display());
            if path.extension().is_some_and(|e| e == "awk") {
                continue;
            }
            count += 1;
            let shell = if Command::new("busybox").arg("true").status().is_ok() {
                ["busybox", "ash"].as_slice()
            } else {
                &["sh"]
            };
            let output = Command::new(shell[0]).args(&shell[1..]).arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        }
    }
    assert!(count >= 10, "only {count} scripts were looked at");
}

#[test]
fn json_becomes_lines() {
    let text = r#"{"uuid": "u-1", "a": {"b": [1, "x\ty", {"c": null}], "e": {}}, "list": [], "k.e\"y": "q\"uo\\te\n",
        "esc": "\u0041\u00e9\u000a|\/", "n": -1.5e3, "t": true, "utf": "ü"}"#;
    let (lines, fine) = awk("lib/json.awk", text);
    assert!(fine);
    let wanted = [
        "uuid\tu-1",
        "a.b.0\t1",
        "a.b.1\tx y",
        "a.b.2.c\tnull",
        "k.e\"y\tq\"uo\\te",
        "esc\tA? |/",
        "n\t-1.5e3",
        "t\ttrue",
        "utf\tü",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn what_is_not_json_is_refused() {
    let deep = "[".repeat(40);
    for text in [
        "",
        "{",
        "{\"a\"",
        "{\"a\": }",
        "{\"a\": 1 \"b\": 2}",
        "\"open",
        "<html>404</html>",
        "{} {}",
        "[1,",
        deep.as_str(),
        "\"\\",
    ] {
        let (lines, fine) = awk("lib/json.awk", text);
        assert!(!fine, "{text:?} was taken: {lines}");
    }
}

#[test]
fn cloud_config_gives_what_is_understood_and_names_the_rest() {
    let text = "#cloud-config\n# a comment\nhostname: oak # mine\npassword: 'it''s'\nssh_authorized_keys:\n  - ssh-rsa AAAA me@x\n  - \"ssh-ed25519 \\\"B\\\"\"\n\
        runcmd:\n- echo hi # there\n- [ls, -l]\nwrite_files:\n  - path: /x\n    content: |\n      text: y\npackages: [a]\nbootcmd:\n  nested: 1\n";
    let (lines, fine) = awk("lib/cloud-config.awk", text);
    assert!(fine);
    let wanted = [
        "hostname\toak",
        "password\tit's",
        "ssh_authorized_keys\tssh-rsa AAAA me@x",
        "ssh_authorized_keys\tssh-ed25519 \"B\"",
        "runcmd\techo hi",
        "runcmd (this form of it)\t",
        "write_files (this form of it)\t",
        "packages (this form of it)\t",
        "bootcmd (this form of it)\t",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), wanted);
}

/// Runs the DHCP script with a false `ip` that notes what it is asked, and gives those lines and resolv.conf.
fn lease(variables: &[(&str, &str)]) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["bin", "run/starter", "net/eth0"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("bin/ip"), format!("#!/bin/sh\necho \"$*\" >>{}\n", at("log").display())).unwrap();
    fs::set_permissions(at("bin/ip"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("net/eth0/ifindex"), "2\n").unwrap();
    let text = fs::read_to_string(guest("lib/dhcp")).unwrap();
    let text = text
        .replace("PATH=/usr/sbin:/usr/bin", &format!("PATH={}:$PATH", at("bin").display()))
        .replace("/run/", &format!("{}/", at("run").display()))
        .replace("/sys/class/net/", &format!("{}/", at("net").display()));
    fs::write(at("dhcp"), text).unwrap();
    let status = Command::new("sh")
        .arg(at("dhcp"))
        .arg("bound")
        .env("interface", "eth0")
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    assert!(status.success());
    let log = fs::read_to_string(at("log")).unwrap();
    (log.lines().map(str::to_owned).collect(), fs::read_to_string(at("run/resolv.conf")).unwrap())
}

#[test]
fn a_lease_with_classless_routes_ignores_the_router() {
    let (log, resolv) = lease(&[
        ("ip", "10.0.0.5"),
        ("mask", "24"),
        ("mtu", "1450"),
        ("router", "10.0.0.254"),
        ("dns", "10.0.0.2 10.0.0.3"),
        ("domain", "openstacklocal"),
        ("staticroutes", "0.0.0.0/0 10.0.0.1 169.254.169.254/32 10.0.0.2 10.7.0.0/16 0.0.0.0"),
    ]);
    let wanted = [
        "link set dev eth0 mtu 1450",
        "-4 addr flush dev eth0",
        "-4 addr add 10.0.0.5/24 broadcast + dev eth0",
        "-4 route replace 0.0.0.0/0 via 10.0.0.1 dev eth0 metric 2",
        "-4 route replace 169.254.169.254/32 via 10.0.0.2 dev eth0 metric 2",
        "-4 route replace 10.7.0.0/16 dev eth0 metric 2",
    ];
    assert_eq!(log, wanted);
    assert_eq!(resolv, "search openstacklocal\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n");
}

#[test]
fn a_plain_lease_takes_the_first_router_and_no_silly_mtu() {
    let (log, resolv) =
        lease(&[("ip", "192.0.2.9"), ("mask", "26"), ("mtu", "68"), ("router", "192.0.2.1 192.0.2.2"), ("dns", "")]);
    assert!(log.contains(&"-4 route replace 0.0.0.0/0 via 192.0.2.1 dev eth0 metric 2".to_owned()), "{log:?}");
    assert_eq!(log.iter().filter(|l| l.contains("via")).count(), 1);
    assert!(!log.iter().any(|l| l.contains("mtu")));
    assert_eq!(resolv, "");
}
