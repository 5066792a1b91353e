//! The auction house of the Nexmark benchmark, for first jobs and for measuring: people come, offer things, and bid. Event
//! number `i` is made from `i` alone, so that every run and every subtask sees the same house. The queries are not here:
//! they are an example.
//!
//! ```
//! # let env = thalweg_api::testing::environment(2, std::env::temp_dir())?;
//! use thalweg_api::{Sequence, nexmark::{Event, event}};
//!
//! // Without an end and at a rate: Sequence::endless().rate(10_000.0).
//! let bids = env.generate(Sequence::new(0..100), |i| event(i)).filter(|e| matches!(e, Event::Bid(_))).collect();
//! # let result = env.execute("bids")?;
//! assert_eq!(result.collected(&bids)?.len(), 92);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

use serde::{Deserialize, Serialize};

/// A number from a number, well mixed.
#[inline(always)]
pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Somebody comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Which.
    pub id: u64,
    /// First and last name.
    pub name: String,
    /// Lives in one of 16 cities.
    pub city: u32,
    /// And in one of 8 states.
    pub state: u32,
    /// When.
    pub time: i64,
}

/// Something is offered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Auction {
    /// Which.
    pub id: u64,
    /// By whom.
    pub seller: u64,
    /// Of what kind.
    pub category: u32,
    /// From which price on.
    pub initial_bid: u64,
    /// For which price at least.
    pub reserve: u64,
    /// Until when.
    pub expires: i64,
    /// When.
    pub time: i64,
}

/// Somebody bids.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bid {
    /// For what.
    pub auction: u64,
    /// Who.
    pub bidder: u64,
    /// How much.
    pub price: u64,
    /// When.
    pub time: i64,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// 1 of 50.
    Person(Person),
    /// 3 of 50.
    Auction(Auction),
    /// 46 of 50.
    Bid(Bid),
}

impl Event {
    /// When.
    #[inline(always)]
    pub fn time(&self) -> i64 {
        match self {
            Event::Person(p) => p.time,
            Event::Auction(a) => a.time,
            Event::Bid(b) => b.time,
        }
    }
}

const FIRST: [&str; 8] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie"];
const LAST: [&str; 8] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones"];

/// Event number i; 100 events a millisecond of event time.
#[inline(always)]
pub fn event(i: u64) -> Event {
    let (epoch, off) = (i / 50, i % 50);
    let time = (i / 100) as i64;
    let h = splitmix64(i);
    if off == 0 {
        let (first, last) = (FIRST[(h & 7) as usize], LAST[((h >> 3) & 7) as usize]);
        let mut name = String::with_capacity(first.len() + last.len() + 1);
        name.push_str(first);
        name.push(' ');
        name.push_str(last);
        Event::Person(Person { id: epoch, name, city: ((h >> 8) & 15) as u32, state: ((h >> 12) & 7) as u32, time })
    } else if off <= 3 {
        let back = ((h >> 16) % 1000).min(epoch);
        let initial_bid = 100 + (h >> 32) % 100_000;
        Event::Auction(Auction {
            id: epoch * 3 + off - 1,
            seller: epoch - back,
            category: 10 + (h & 7) as u32,
            initial_bid,
            reserve: initial_bid * 2,
            expires: time + 10_000,
            time,
        })
    } else {
        let last = epoch * 3 + 2;
        let auction = if h & 1 == 0 { last / 100 * 100 } else { last - ((h >> 8) % 100).min(last) };
        let bidder = epoch - ((h >> 16) % 1000).min(epoch);
        Event::Bid(Bid { auction, bidder, price: 100 + (h >> 32) % 10_000_000, time })
    }
}
