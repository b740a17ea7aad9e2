//! Nodes: their start, their end, and what runs them.

use rustix::thread::{CapabilitySets, set_capabilities};

use super::*;

#[test]
fn a_second_node_cannot_join_the_first_ones_port_and_can_have_it_afterwards() {
    let first = rig(setup(2));
    let media_port = first.node.media_address().port();
    let again = NodeSetup { media_port, ..setup(2) };
    let refused = Node::start(again.clone()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, NodeError::Bind { .. }), "{refused}");
    first.stop();
    let second = rig(again);
    assert_eq!(second.node.media_address().port(), media_port);
    assert_eq!(ask(&second.udp(), &[0, 1]), [1, 0, 1]);
    second.stop();
}

#[test]
fn a_node_without_shards_is_refused() {
    assert!(matches!(Node::start(setup(0)), Err(NodeError::Shards(0))));
}

#[test]
fn a_report_says_what_runs_the_shard() {
    let plain = rig(setup(1));
    assert!(!plain.node.is_on_glommio() && !plain.report(0).on_glommio);
    plain.stop();
    let glommio = rig(NodeSetup { runtime: Runtime::Glommio, ..setup(1) });
    let report = glommio.report(0);
    assert_eq!(report.on_glommio, glommio.node.is_on_glommio());
    assert!(report.busy < 0.9, "an idle shard waits: {}", report.busy);
    assert!(report.io.sleeps < 1000, "and does not spin: {:?}", report.io);
    glommio.stop();
}

/// Set in a process that is to be a case and not a test run.
const CASE: &str = "RINGCAST_TEST_CASE";

#[expect(clippy::disallowed_methods, reason = "how a test tells its child that it is one")]
fn is_case() -> bool {
    std::env::var_os(CASE).is_some()
}

/// Runs the named test in a process of its own, where [`is_case`]; returns its exit code.
fn in_a_process(limit: &str, test: &str) -> Option<i32> {
    let this = std::env::current_exe().unwrap();
    let script = format!("{limit} exec \"$0\" --exact shard::tests::nodes::{test}");
    let mut shell = std::process::Command::new("sh");
    let output = shell.args(["-c", &script]).arg(this).env(CASE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("running 1 test"), "{text}");
    output.status.code()
}

#[test]
fn where_io_uring_is_refused_a_shard_runs_on_a_plain_thread() {
    if !is_case() {
        let test = "where_io_uring_is_refused_a_shard_runs_on_a_plain_thread";
        assert_eq!(in_a_process("ulimit -l 64;", test), Some(0));
        return;
    }
    let rig = rig(NodeSetup { runtime: Runtime::Glommio, ..setup(2) });
    assert!(!rig.node.is_on_glommio());
    assert_eq!(ask(&rig.udp(), &[0, 1, 7]), [1, 0, 1, 7]);
    assert!(!rig.report(1).on_glommio);
    rig.stop();
}

/// Starts a node of three shards on a thread with these capabilities, which its shards inherit.
fn node_with(capabilities: CapabilitySet) -> Rig {
    let start = move || {
        let none = CapabilitySet::empty();
        let sets =
            CapabilitySets { effective: capabilities, permitted: capabilities, inheritable: none };
        set_capabilities(None, sets).unwrap();
        rig(setup(3))
    };
    std::thread::spawn(start).join().unwrap()
}

#[test]
fn cap_bpf_is_all_that_steering_takes_and_without_it_shards_hand_over() {
    let ways = [(CapabilitySet::empty(), false), (CapabilitySet::BPF, true)];
    for (capabilities, steering) in ways.into_iter().take(if may_steer() { 2 } else { 1 }) {
        let rig = node_with(capabilities);
        assert_eq!(rig.node.is_steering(), steering);
        assert_eq!(rig.report(1).steering, steering);
        for n in 0..12 {
            let (client, hello) = (rig.udp(), stun(n % 3, n));
            assert_eq!(ask(&client, &hello), [&[n % 3][..], &hello].concat());
            assert_eq!(ask(&client, &[ECHO, n]), [n % 3, ECHO, n]);
        }
        rig.stop();
    }
}

#[test]
fn a_panic_on_a_shards_thread_ends_the_process() {
    if !is_case() {
        let code = in_a_process("", "a_panic_on_a_shards_thread_ends_the_process");
        assert_eq!(code, Some(70));
        return;
    }
    let rig = rig(setup(2));
    let client = rig.udp();
    assert_eq!(ask(&client, &[0, 1]), [1, 0, 1]);
    client.send(&[PANIC]).unwrap();
    listen(&client);
}
