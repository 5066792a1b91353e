//! Orders in several currencies, valued by rates that every subtask knows: `enrichment [--orders N]`.
//!
//! Rates are broadcast: each subtask gets all of them and keeps them in broadcast state. An order that comes before the rate of its
//! currency waits in that subtask; what is of a currency that has none (XXX is ISO 4217's code for that) leaves by a side output.

use clap::Parser;
use std::collections::BTreeMap;
use thalweg::{BroadcastProcessFunction, ProcessContext, prelude::*};
use thalweg_examples::{Common, nexmark::splitmix64, print_sorted};

#[derive(Parser)]
struct Args {
    /// Orders.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    orders: u64,
    #[command(flatten)]
    common: Common,
}

const CURRENCIES: [&str; 5] = ["EUR", "USD", "GBP", "JPY", "XXX"];

/// Currency and hundredths.
type Order = (String, u64);

/// Values orders in thousandths of a euro.
#[derive(Clone)]
struct Value {
    unknown: OutputTag<Order>,
    /// Orders that wait for a rate, in this subtask. A restart would lose them; what must survive belongs into keyed state.
    waiting: Vec<Order>,
}

impl BroadcastProcessFunction<Order, (String, u64)> for Value {
    type State = BTreeMap<String, u64>;
    type Out = (String, u64);

    fn process(&mut self, order: Order, rates: &Self::State, ctx: &mut impl ProcessContext<(String, u64)>) {
        if order.0 == "XXX" {
            return ctx.output(&self.unknown.clone(), order);
        }
        match rates.get(&order.0) {
            Some(rate) => ctx.emit((order.0, order.1 * rate)),
            None => self.waiting.push(order),
        }
    }

    fn process_broadcast(
        &mut self,
        rate: (String, u64),
        rates: &mut Self::State,
        ctx: &mut impl ProcessContext<(String, u64)>,
    ) {
        for order in self.waiting.extract_if(.., |order| order.0 == rate.0) {
            ctx.emit((order.0, order.1 * rate.1));
        }
        rates.insert(rate.0, rate.1);
    }
}

fn main() -> Result<(), JobError> {
    let args = Args::parse();
    let env = args.common.environment();
    let orders = env.sequence(0..args.orders).uid("orders").map(|i| {
        let chance = splitmix64(i);
        (CURRENCIES[(chance % 5) as usize].to_owned(), (chance >> 8) % 10_000)
    });
    let rates = env.from_collection([("EUR", 1000), ("USD", 900), ("GBP", 1200), ("JPY", 6)]).uid("rates");
    let unknown = OutputTag::new("unknown");
    let valued = orders
        .connect_broadcast(rates.map(|(currency, rate)| (currency.to_owned(), rate)))
        .process(Value { unknown: unknown.clone(), waiting: Vec::new() })
        .uid("valued");
    let unknown =
        valued.side_output(&unknown).key_by(|_| 0u8).count().uid("unknown").collect().with_uid("without-rate");
    let totals = valued.key_by(|v| v.0.clone()).sum(|v| v.1).uid("totals").collect().with_uid("out");
    let result = env.execute("enrichment")?;
    let mut lines: Vec<String> =
        result.collected(&totals)?.iter().map(|(c, sum)| format!("{c} {:.2} EUR", *sum as f64 / 100_000.0)).collect();
    lines.extend(result.collected(&unknown)?.iter().map(|(_, n)| format!("{n} orders without a rate")));
    print_sorted(lines);
    Ok(())
}
