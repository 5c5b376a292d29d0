//! The plan against a model of a host: from every state, with a crash of the agent between any two
//! steps, it reaches what is wanted and then has nothing left to do.
use super::*;
use proptest::prelude::*;

/// A host on which steps do what they say.
#[derive(Debug, Clone)]
struct Model {
    found: Found,
    files: bool,
    wired: bool,
    starts: u32,
    roots_removed: u32,
}

impl Model {
    fn apply(&mut self, goal: Option<&Goal>, step: Step) {
        let doc = &mut self.found.doc;
        match step {
            Step::Fetch | Step::ConfigDrive => {}
            Step::Ports => self.wired = true,
            Step::Disks => self.found.disks = true,
            Step::Start => {
                assert!(self.wired && self.found.disks, "started unprepared");
                assert_eq!(self.found.run, Run::Absent, "started twice");
                self.starts += 1;
                self.found.run = Run::Running;
                doc.started = self.found.boot.clone();
                (doc.starting, doc.ended, doc.suspended) = (false, None, false);
                self.found.saved = false;
            }
            Step::MarkStarted => {
                assert!(matches!(self.found.run, Run::Running | Run::Paused));
                doc.started = self.found.boot.clone();
                (doc.starting, doc.ended, doc.suspended) = (false, None, false);
            }
            Step::Shutdown => {
                assert_eq!(self.found.run, Run::Running, "only a running guest can hear");
                self.found.run = Run::PoweredOff;
            }
            Step::Ending => doc.started.clear(),
            Step::Kill => self.found.run = Run::Absent,
            Step::MarkEnded(ended) => {
                doc.started.clear();
                doc.ended = Some(ended);
            }
            Step::MarkOff => {
                doc.started.clear();
                (doc.starting, doc.suspended, doc.ended) = (false, false, None);
            }
            Step::Rebooted => {
                let goal = goal.unwrap();
                doc.done.hard_reboots = goal.counters.hard_reboots;
                doc.done.soft_reboots = goal.counters.soft_reboots;
                doc.started.clear();
                (doc.starting, doc.suspended, doc.ended) = (false, false, None);
            }
            Step::RemoveRoot => {
                assert_eq!(self.found.run, Run::Absent, "a root in use was removed");
                self.roots_removed += 1;
                self.found.disks = false;
            }
            Step::Rebuilt => {
                doc.done = goal.unwrap().counters;
                doc.started.clear();
                (doc.starting, doc.suspended, doc.ended) = (false, false, None);
            }
            Step::Pause => self.found.run = Run::Paused,
            Step::Resume => {
                self.found.saved = false;
                self.found.run = Run::Running;
            }
            Step::Suspend => {
                self.found.saved = true;
                self.found.run = Run::Absent;
            }
            Step::MarkSuspended => {
                doc.started.clear();
                (doc.starting, doc.suspended) = (false, true);
            }
            Step::Move(step) => panic!("{step:?}, though no move is wanted"),
            Step::Snapshot(step) => {
                self.found.snapshot = match step {
                    SnapshotStep::Copy => Some(SnapshotStep::Upload),
                    SnapshotStep::Upload => Some(SnapshotStep::Uploaded),
                    SnapshotStep::Uploaded => Some(SnapshotStep::Sweep),
                    SnapshotStep::Sweep => None,
                }
            }
            Step::MarkRemoving => doc.removing = true,
            Step::ReleasePorts => self.wired = false,
            Step::Device(step) => {
                assert_eq!(self.found.run, Run::Running, "only a running guest takes and gives devices");
                self.found.devices.retain(|due| *due != step);
            }
            Step::Upgrade => {
                assert!(self.found.run == Run::Running && self.found.devices.is_empty(), "something else is under way");
                (doc.done.upgrades, self.found.upgrade) = (goal.unwrap().counters.upgrades, Due::No);
            }
            Step::SettleUpgrade => {
                assert_eq!(self.found.run, Run::Switching);
                self.found.run = Run::Running;
            }
            Step::Upgraded => doc.done.upgrades = goal.unwrap().counters.upgrades,
            Step::RemoveFiles => {
                assert!(self.found.run == Run::Absent && !self.wired, "removed while in use");
                self.files = false;
            }
        }
    }

    /// Plans and applies until settled, breaking off after each of `crashes` steps once.
    fn converge(&mut self, goal: Option<&Goal>, crashes: &[usize]) {
        let mut crashes = crashes.iter();
        for _ in 0..30 {
            let steps = plan(goal, &self.found);
            if steps.is_empty() || !self.files {
                return;
            }
            let most = crashes.next().copied().unwrap_or(usize::MAX);
            for step in steps.into_iter().take(most) {
                self.apply(goal, step);
            }
        }
        panic!("not settled after 30 plans: {self:?}");
    }
}

fn any_power() -> impl Strategy<Value = Power> {
    prop_oneof![Just(Power::Running), Just(Power::Stopped), Just(Power::Paused), Just(Power::Suspended),]
}

fn any_counters() -> impl Strategy<Value = Counters> {
    (0_u64..3, 0_u64..3, 0_u64..3, 0_u64..3).prop_map(|(hard_reboots, soft_reboots, rebuilds, upgrades)| Counters {
        hard_reboots,
        soft_reboots,
        rebuilds,
        upgrades,
    })
}

prop_compose! {
    fn any_goal()(generation in 1_u64..5, power in any_power(), counters in any_counters()) -> Goal {
        Goal { generation, power, counters }
    }
}

prop_compose! {
    fn any_model()(
        run in prop_oneof![
            Just(Run::Absent), Just(Run::Running), Just(Run::Paused), Just(Run::PoweredOff), Just(Run::Broken),
            Just(Run::Switching)
        ],
        done in any_counters(),
        started in prop_oneof![Just(""), Just("this"), Just("former")],
        ended in proptest::option::of((0_u64..5, any::<bool>())),
        flags in any::<(bool, bool, bool, bool)>(),
        upgrade in prop_oneof![Just(Due::No), Just(Due::Now)],
        snapshot in proptest::option::of(prop_oneof![
            Just(SnapshotStep::Copy), Just(SnapshotStep::Upload), Just(SnapshotStep::Uploaded), Just(SnapshotStep::Sweep)
        ]),
    ) -> Model {
        let (starting, suspended, disks, wired) = flags;
        let devices = if wired { vec![DeviceStep::Plug, DeviceStep::Unplug] } else { vec![] };
        let ended = ended.map(|(generation, crashed)| Ended { generation, crashed });
        let doc = Doc { done, starting, started: started.into(), ended, suspended, ..Doc::default() };
        let found =
            Found { run, doc, saved: false, disks, boot: "this".into(), snapshot, wish: Wish::Stay, devices, upgrade };
        Model { found, files: true, wired, starts: 0, roots_removed: 0 }
    }
}

proptest! {
    #[test]
    fn from_anywhere_to_what_is_wanted(
        mut model in any_model(), goal in any_goal(), crashes in proptest::collection::vec(0_usize..4, 0..6)
    ) {
        model.converge(Some(&goal), &crashes);
        let doc = &model.found.doc;
        let stays_off = doc.ended.is_some_and(|e| e.generation >= goal.generation);
        let wanted = match goal.power {
            Power::Running | Power::Unspecified => Run::Running,
            Power::Paused => Run::Paused,
            Power::Stopped | Power::Suspended => Run::Absent,
        };
        prop_assert!(model.found.run == wanted || (stays_off && model.found.run == Run::Absent));
        prop_assert!(model.starts <= 2, "{} starts", model.starts);
        prop_assert!(goal.counters.rebuilds <= doc.done.rebuilds && goal.counters.upgrades <= doc.done.upgrades);
        prop_assert!(goal.counters.hard_reboots <= doc.done.hard_reboots);
        prop_assert!(plan(Some(&goal), &model.found).is_empty());
    }

    #[test]
    fn nothing_is_left_when_it_goes(
        mut model in any_model(), crashes in proptest::collection::vec(0_usize..4, 0..6)
    ) {
        model.converge(None, &crashes);
        prop_assert!(!model.files && !model.wired && model.found.run == Run::Absent);
    }

    #[test]
    fn a_running_guest_is_left_alone(mut model in any_model(), goal in any_goal()) {
        model.found.run = Run::Running;
        let goal = Goal { power: Power::Running, counters: model.found.doc.done, ..goal };
        model.converge(Some(&goal), &[]);
        prop_assert_eq!((model.starts, model.roots_removed), (0, 0));
    }
}

fn fresh() -> Model {
    let found = Found {
        run: Run::Absent,
        doc: Doc::default(),
        saved: false,
        disks: false,
        boot: "this".into(),
        snapshot: None,
        wish: Wish::Stay,
        devices: Vec::new(),
        upgrade: Due::No,
    };
    Model { found, files: true, wired: false, starts: 0, roots_removed: 0 }
}

fn running(generation: u64) -> Goal {
    Goal { generation, power: Power::Running, counters: Counters::default() }
}

#[test]
fn a_guest_that_powered_itself_off_stays_off_until_wanted_anew() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    model.found.run = Run::PoweredOff;
    model.converge(Some(&running(1)), &[]);
    let ended = model.found.doc.ended.unwrap();
    assert!(!ended.crashed && model.found.run == Run::Absent);
    model.converge(Some(&running(2)), &[]);
    assert_eq!((model.found.run, model.starts), (Run::Running, 2));
}

#[test]
fn a_vanished_guest_has_crashed_and_a_rebooted_host_has_not_crashed_it() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    model.found.run = Run::Absent;
    let mut rebooted = model.clone();
    model.converge(Some(&running(1)), &[]);
    assert!(model.found.doc.ended.unwrap().crashed);
    rebooted.found.boot = "next".into();
    rebooted.converge(Some(&running(1)), &[]);
    assert_eq!((rebooted.found.run, rebooted.starts), (Run::Running, 2));
}

#[test]
fn each_reboot_is_done_once() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    let counters = Counters { hard_reboots: 1, soft_reboots: 4, ..Counters::default() };
    let goal = Goal { generation: 2, counters, ..running(2) };
    model.converge(Some(&goal), &[1, 1, 1]);
    assert_eq!((model.starts, model.found.run), (2, Run::Running));
    model.converge(Some(&goal), &[]);
    assert_eq!(model.starts, 2);
}

#[test]
fn a_saved_guest_is_not_taken_for_a_crashed_one() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    let goal = Goal { power: Power::Suspended, ..running(2) };
    // The agent dies after Suspend and before MarkSuspended.
    model.converge(Some(&goal), &[1]);
    assert!(model.found.doc.suspended && model.found.doc.ended.is_none());
    model.converge(Some(&running(3)), &[]);
    assert_eq!((model.found.run, model.found.saved), (Run::Running, false));
}

#[test]
fn a_removal_that_was_begun_is_carried_through() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    // The agent dies after Kill; meanwhile the same id is wanted anew.
    for step in plan(None, &model.found).into_iter().take(2) {
        model.apply(None, step);
    }
    model.converge(Some(&running(2)), &[]);
    assert!(!model.files && model.found.doc.ended.is_none(), "taken for a crash");
}

#[test]
fn what_we_end_is_not_taken_for_a_crash_when_we_die_over_it() {
    for power in [Power::Running, Power::Stopped] {
        for crash_after in 1..4 {
            let mut model = fresh();
            model.converge(Some(&running(1)), &[]);
            // A reboot or a stop is begun; then it is no longer wanted.
            let counters = Counters { hard_reboots: 1, ..Counters::default() };
            let goal = Goal { generation: 2, power, counters };
            for step in plan(Some(&goal), &model.found).into_iter().take(crash_after) {
                model.apply(Some(&goal), step);
            }
            model.converge(Some(&running(3)), &[]);
            assert_eq!(model.found.run, Run::Running, "{power:?} after {crash_after}");
        }
    }
}

#[test]
fn why_it_ended_is_written_before_the_evidence_goes() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    model.found.run = Run::PoweredOff;
    model.converge(Some(&running(1)), &[1, 1]);
    assert!(model.found.doc.ended.is_some_and(|ended| !ended.crashed));
}

#[test]
fn an_upgrade_comes_last_and_what_was_begun_is_settled_first() {
    let mut model = fresh();
    model.converge(Some(&running(1)), &[]);
    let asked = Goal { counters: Counters { upgrades: 1, ..Counters::default() }, ..running(2) };
    let plan_of = |model: &Model, goal: &Goal| plan(Some(goal), &model.found);
    (model.found.upgrade, model.found.devices) = (Due::Now, vec![DeviceStep::Plug]);
    assert_eq!(plan_of(&model, &asked), [Step::Device(DeviceStep::Plug)]);
    model.found.devices.clear();
    assert_eq!(plan_of(&model, &asked), [Step::Upgrade]);
    model.found.upgrade = Due::Later;
    assert_eq!(plan_of(&model, &asked), []);
    // It runs in the right one already, or what starts next does.
    model.found.upgrade = Due::No;
    assert_eq!(plan_of(&model, &asked), [Step::Upgraded]);
    (model.found.upgrade, model.found.run) = (Due::Now, Run::Paused);
    assert_eq!(plan_of(&model, &Goal { power: Power::Paused, ..asked }), [Step::Upgraded]);
    model.found.run = Run::Switching;
    for power in [Power::Running, Power::Stopped, Power::Suspended] {
        assert_eq!(plan_of(&model, &Goal { power, ..asked }), [Step::SettleUpgrade]);
    }
    assert!(plan(None, &model.found).contains(&Step::Kill));
}
