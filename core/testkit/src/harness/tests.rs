//! The engine keeps its own promises.

use super::*;
use std::time::Duration;

#[derive(Debug)]
struct Words;

impl Kinds for Words {
    type Message = u32;
    type Answer = u32;
    type Ticket = u32;
    type Local = u32;
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn rough() -> Weather {
    Weather { delay: (Duration::ZERO, millis(50)), jam: 50, jam_for: millis(500), ..Weather::calm() }
}

fn drain(sim: &mut Sim<Words>) -> Vec<(NodeId, Happening<Words>)> {
    std::iter::from_fn(|| sim.next()).collect()
}

#[test]
fn a_link_keeps_its_order_each_way() {
    for seed in 0..50 {
        let mut sim = Sim::<Words>::new(seed, false);
        sim.weather = rough();
        let (a, b) = (sim.node("a"), sim.node("b"));
        let link = sim.link(a, b);
        (0..100).for_each(|n| sim.tell(link, a, n));
        let told = drain(&mut sim).into_iter().filter_map(|(_, h)| match h {
            Happening::Told { message, .. } => Some(message),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_broken_link_loses_an_end_of_what_was_sent_and_both_ends_notice() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut sim = Sim::<Words>::new(seed, false);
        sim.weather = rough();
        let (a, b) = (sim.node("a"), sim.node("b"));
        let link = sim.link(a, b);
        (0..20).for_each(|n| sim.tell(link, a, n));
        sim.break_link(link);
        sim.tell(link, a, 99);
        let (mut told, mut closed) = (Vec::new(), 0);
        for (_, happening) in drain(&mut sim) {
            match happening {
                Happening::Told { message, .. } => told.push(message),
                Happening::Closed { .. } => closed += 1,
                _ => {}
            }
        }
        assert_eq!(told, (0..told.len() as u32).collect::<Vec<_>>(), "a beginning, in order");
        assert_eq!(closed, 2);
        lost += 20 - told.len();
    }
    assert!(lost > 0);
}

#[test]
fn an_ask_has_one_outcome() {
    let mut seen = [0; 3];
    for seed in 0..200 {
        let mut sim = Sim::<Words>::new(seed, false);
        sim.weather = rough();
        let (a, b) = (sim.node("a"), sim.node("b"));
        let link = sim.link(a, b);
        (0..10).for_each(|n| sim.ask(link, a, millis(60), n, n));
        let mut outcomes = vec![0; 10];
        while let Some((node, happening)) = sim.next() {
            match happening {
                Happening::Asked { call, message } => {
                    sim.answer(call, node, message);
                    if message == 5 && seed % 2 == 0 {
                        sim.break_link(link);
                    }
                }
                Happening::Answered { ticket, outcome } => {
                    outcomes[ticket as usize] += 1;
                    seen[match outcome {
                        Outcome::Answer(_) => 0,
                        Outcome::Closed => 1,
                        Outcome::TimedOut => 2,
                    }] += 1;
                }
                _ => {}
            }
        }
        assert_eq!(outcomes, vec![1; 10], "seed {seed}");
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

#[test]
fn the_dead_hear_nothing_and_the_stopped_hear_it_later() {
    let mut sim = Sim::<Words>::new(1, false);
    let (a, b) = (sim.node("a"), sim.node("b"));
    sim.post(a, millis(1), 1);
    sim.post(b, millis(1), 2);
    sim.stop(b, millis(10));
    sim.kill(a);
    let (node, happening) = sim.next().unwrap();
    assert!(node == b && matches!(happening, Happening::Local(2)) && sim.now().since_start() == millis(10));
    assert!(sim.next().is_none());
}

#[test]
fn a_lane_keeps_its_order() {
    let mut sim = Sim::<Words>::new(3, false);
    sim.weather.hesitation = millis(20);
    let a = sim.node("a");
    (0..50).for_each(|n| sim.post_in_order(a, 7, n));
    let order = drain(&mut sim).into_iter().map(|(_, h)| match h {
        Happening::Local(n) => n,
        other => panic!("{other:?}"),
    });
    assert_eq!(order.collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
}

#[test]
fn the_lowest_failing_seed_is_told_and_a_panic_is_a_failure() {
    let schedules = Schedules { first: 10, count: 5, threads: 2 };
    let fails = |seed| match seed {
        12 => panic!("boom"),
        seed => Ok(seed),
    };
    let (seed, failure) = schedules.run(fails).unwrap_err();
    assert_eq!((seed, failure.to_string().as_str()), (12, "no panic: boom"));
    assert_eq!(schedules.run(Ok::<u64, Failure>).unwrap().len(), 5);
}
