//! The queries of the Nexmark benchmark over its auction house: `nexmark q1|q2|…|q8 [--events N]`.
//!
//! | query | asks for |
//! |---|---|
//! | q1 | bids in another currency (told: their number and sum) |
//! | q2 | bids on every 123rd auction |
//! | q3 | who offers something of category 10 and lives in states 0 to 2 |
//! | q4 | the mean closing price of each category |
//! | q5 | the auction with most bids in the last 10 s, each 2 s |
//! | q6 | the mean closing price of each seller's last ten auctions |
//! | q7 | the highest bid of each 10 s |
//! | q8 | who came and offered something within the same 10 s |

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, time::Duration};
use thalweg::{KeyedCoProcess, Sequence, TimeDomain, prelude::*};
use thalweg_examples::{
    Common,
    nexmark::{Auction, Bid, Event, Person, event},
    print_sorted,
};

#[derive(Parser)]
struct Args {
    /// Which query.
    query: Query,
    /// Events of the auction house; 100 a millisecond, 1 in 50 a person, 3 an auction, 46 a bid.
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    events: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Query {
    Q1,
    Q2,
    Q3,
    Q4,
    Q5,
    Q6,
    Q7,
    Q8,
}

type Lines = Result<Vec<String>, JobError>;

fn main() -> Result<(), JobError> {
    let Args { query, events, common } = Args::parse();
    let env = common.environment();
    let house = env
        .source(Sequence::new(0..events).interleaved())
        .uid("events")
        .map(event)
        .assign_timestamps_and_watermarks(Event::time, WatermarkStrategy::for_monotonous_timestamps())
        .boxed();
    print_sorted(match query {
        Query::Q1 => currency(&env, house)?,
        Query::Q2 => selection(&env, house)?,
        Query::Q3 => local_offers(&env, house)?,
        Query::Q4 => category_means(&env, house)?,
        Query::Q5 => hot_items(&env, house)?,
        Query::Q6 => seller_means(&env, house)?,
        Query::Q7 => highest_bids(&env, house)?,
        Query::Q8 => new_sellers(&env, house)?,
    });
    Ok(())
}

fn bids(house: DataStream<Event>) -> DataStream<Bid> {
    house.filter_map(|e| if let Event::Bid(bid) = e { Some(bid) } else { None }).boxed()
}

fn auctions(house: DataStream<Event>) -> DataStream<Auction> {
    house.filter_map(|e| if let Event::Auction(auction) = e { Some(auction) } else { None }).boxed()
}

fn persons(house: DataStream<Event>) -> DataStream<Person> {
    house.filter_map(|e| if let Event::Person(person) = e { Some(person) } else { None }).boxed()
}

/// How many and how much in all.
#[derive(Clone)]
struct Total;

impl AggregateFunction<u64> for Total {
    type Acc = (u64, u64);
    type Out = (u64, u64);
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&mut self, acc: &mut (u64, u64), item: u64) {
        self.merge(acc, (1, item));
    }
    fn merge(&mut self, acc: &mut (u64, u64), more: (u64, u64)) {
        *acc = (acc.0 + more.0, acc.1.wrapping_add(more.1));
    }
    fn result(&mut self, acc: (u64, u64)) -> (u64, u64) {
        acc
    }
}

fn currency(env: &Environment, house: DataStream<Event>) -> Lines {
    let prices = bids(house).map(|bid| bid.price * 908 / 1000);
    let total = prices.key_by(|_| 0u8).aggregate(Total).uid("total").collect().with_uid("out");
    let result = env.execute("q1")?;
    Ok(result.collected(&total)?.iter().map(|(_, (n, sum))| format!("{n} bids of {sum} in all")).collect())
}

fn selection(env: &Environment, house: DataStream<Event>) -> Lines {
    let some = bids(house).filter(|bid| bid.auction.is_multiple_of(123)).map(|bid| bid.price);
    let total = some.key_by(|_| 0u8).aggregate(Total).uid("total").collect().with_uid("out");
    let result = env.execute("q2")?;
    Ok(result.collected(&total)?.iter().map(|(_, (n, sum))| format!("{n} bids of {sum} in all")).collect())
}

/// Each auction with its seller, whoever comes first.
#[derive(Clone)]
struct WithSeller;

impl KeyedCoProcess<Person, Auction> for WithSeller {
    type Key = u64;
    type State = (Option<Person>, Vec<u64>);
    type Out = (String, u32, u32, u64);
    fn left(&mut self, person: Person, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        for auction in std::mem::take(&mut state.1) {
            ctx.emit((person.name.clone(), person.city, person.state, auction));
        }
        state.0 = Some(person);
    }
    fn right(&mut self, auction: Auction, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        match &state.0 {
            Some(person) => ctx.emit((person.name.clone(), person.city, person.state, auction.id)),
            None => state.1.push(auction.id),
        }
    }
}

fn local_offers(env: &Environment, house: DataStream<Event>) -> Lines {
    let [people, offers] = house.split();
    let people = persons(people).filter(|person| person.state <= 2);
    let offers = auctions(offers).filter(|auction| auction.category == 10);
    let found = people.key_by(|p| p.id).connect(offers.key_by(|a| a.seller)).process(WithSeller).uid("with-seller");
    let found = found.key_by(|f| (f.1, f.2)).count().uid("by-place").collect().with_uid("out");
    let result = env.execute("q3")?;
    let line = |((city, state), n): &((u32, u32), u64)| format!("city {city:>2} state {state}: {n} offers");
    Ok(result.collected(&found)?.iter().map(line).collect())
}

/// An auction that has closed, with its price.
#[derive(Clone, Serialize, Deserialize)]
struct Closed {
    auction: Auction,
    price: u64,
}

/// Waits for the end of each auction, and takes the highest bid that came in time.
#[derive(Clone)]
struct Closing;

impl KeyedCoProcess<Auction, Bid> for Closing {
    type Key = u64;
    type State = (Option<Auction>, Vec<(i64, u64)>);
    type Out = Closed;
    fn left(&mut self, auction: Auction, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Closed>) {
        ctx.register_event_time_timer(auction.expires);
        state.0 = Some(auction);
    }
    fn right(&mut self, bid: Bid, state: &mut Self::State, _: &mut impl KeyedContext<u64, Closed>) {
        state.1.push((bid.time, bid.price));
    }
    fn on_timer(&mut self, _: TimeDomain, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Closed>) {
        let Some(auction) = state.0.take() else { return };
        let in_time = state.1.iter().filter(|(at, price)| *at <= auction.expires && *price >= auction.reserve);
        if let Some(price) = in_time.map(|(_, price)| *price).max() {
            ctx.emit(Closed { auction, price });
        }
        ctx.clear_state();
    }
}

fn closed(house: DataStream<Event>) -> DataStream<Closed> {
    let [offers, offered] = house.split();
    let (offers, bids) = (auctions(offers).key_by(|a| a.id), bids(offered).key_by(|b| b.auction));
    offers.connect(bids).process(Closing).uid("closing").boxed()
}

fn category_means(env: &Environment, house: DataStream<Event>) -> Lines {
    let prices = closed(house).map(|c| (c.auction.category, c.price));
    let totals = prices.key_by(|p| p.0).aggregate(OfSecond).uid("means").collect().with_uid("out");
    let result = env.execute("q4")?;
    let line = |(category, (n, sum)): &(u32, (u64, u64))| format!("category {category}: {} of {n}", sum / n);
    Ok(result.collected(&totals)?.iter().map(line).collect())
}

/// [`Total`] of pairs' second halves.
#[derive(Clone)]
struct OfSecond;

impl AggregateFunction<(u32, u64)> for OfSecond {
    type Acc = (u64, u64);
    type Out = (u64, u64);
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&mut self, acc: &mut (u64, u64), item: (u32, u64)) {
        Total.add(acc, item.1);
    }
    fn merge(&mut self, acc: &mut (u64, u64), more: (u64, u64)) {
        Total.merge(acc, more);
    }
    fn result(&mut self, acc: (u64, u64)) -> (u64, u64) {
        acc
    }
}

fn hot_items(env: &Environment, house: DataStream<Event>) -> Lines {
    let seconds = Duration::from_secs;
    let counts = bids(house)
        .key_by(|bid| bid.auction)
        .window(SlidingEventTimeWindows::of(seconds(10), seconds(2)))
        .count()
        .uid("bids")
        .map(|w| (w.window.end, w.key, w.value));
    let hottest = counts
        .key_by(|hot| hot.0)
        .window(TumblingEventTimeWindows::of(seconds(2)))
        .reduce(|best, other| {
            if (other.2, Reverse(other.1)) > (best.2, Reverse(best.1)) {
                *best = other;
            }
        })
        .uid("hottest")
        .collect()
        .with_uid("out");
    let result = env.execute("q5")?;
    let line = |w: &Windowed<i64, (i64, u64, u64)>| format!("{:>8} auction {} {} bids", w.key, w.value.1, w.value.2);
    Ok(result.collected(&hottest)?.iter().map(line).collect())
}

/// The last ten of a seller by the time they closed; equal times by number.
#[derive(Clone)]
struct LastTen;

impl AggregateFunction<Closed> for LastTen {
    type Acc = Vec<(i64, u64, u64)>;
    type Out = u64;
    fn create(&self) -> Self::Acc {
        Vec::new()
    }
    fn add(&mut self, acc: &mut Self::Acc, c: Closed) {
        self.merge(acc, vec![(c.auction.expires, c.auction.id, c.price)]);
    }
    fn merge(&mut self, acc: &mut Self::Acc, mut more: Self::Acc) {
        acc.append(&mut more);
        acc.sort_unstable_by_key(|last| Reverse(*last));
        acc.truncate(10);
    }
    fn result(&mut self, acc: Self::Acc) -> u64 {
        acc.iter().map(|(_, _, price)| price).sum::<u64>() / (acc.len() as u64).max(1)
    }
}

fn seller_means(env: &Environment, house: DataStream<Event>) -> Lines {
    let means = closed(house).key_by(|c| c.auction.seller).aggregate(LastTen).uid("means");
    // Too many to print: a thousandth of them.
    let means = means.filter(|(seller, _)| seller.is_multiple_of(1000)).collect().with_uid("out");
    let result = env.execute("q6")?;
    Ok(result.collected(&means)?.iter().map(|(seller, mean)| format!("seller {seller:>6}: {mean}")).collect())
}

fn highest_bids(env: &Environment, house: DataStream<Event>) -> Lines {
    let highest = bids(house)
        .window_all(TumblingEventTimeWindows::of(Duration::from_secs(10)))
        .reduce(|best, other| {
            let rank = |bid: &Bid| (bid.price, Reverse((bid.time, bid.auction, bid.bidder)));
            if rank(&other) > rank(best) {
                *best = other;
            }
        })
        .uid("highest")
        .collect()
        .with_uid("out");
    let result = env.execute("q7")?;
    let line = |w: &Windowed<(), Bid>| format!("{:>8} {} for auction {}", w.window.end, w.value.price, w.value.auction);
    Ok(result.collected(&highest)?.iter().map(line).collect())
}

fn new_sellers(env: &Environment, house: DataStream<Event>) -> Lines {
    let [people, offers] = house.split();
    let pairs = persons(people)
        .key_by(|person| person.id)
        .join(auctions(offers).key_by(|auction| auction.seller))
        .window(TumblingEventTimeWindows::of(Duration::from_secs(10)))
        .apply(|person, auction| (person.state, auction.id))
        .uid("new-sellers");
    let by_state = pairs.key_by(|pair| pair.0).count().uid("by-state").collect().with_uid("out");
    let result = env.execute("q8")?;
    Ok(result
        .collected(&by_state)?
        .iter()
        .map(|(state, n)| format!("state {state}: {n} offers of newcomers"))
        .collect())
}
