//! The plan: the graph as Flink's dashboard draws it.

use super::{Answer, json, look::Look};
use crate::rest::RestState;
use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use serde_json::{Value, json};
use thalweg_model::Partitioner;

pub(super) fn routes() -> Router<RestState> {
    Router::new().route("/jobs/{job}/plan", get(of_job))
}

async fn of_job(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    json(&json!({ "plan": plan(&look) }))
}

/// Flink's `Plan`. Feedback edges are left out: they carry no records, and the dashboard draws graphs without cycles.
pub fn plan(look: &Look) -> Value {
    let graph = &look.view.graph;
    let nodes = graph.vertices.iter().enumerate().map(|(index, vertex)| {
        let edges = graph.edges.iter().filter(|e| e.to as usize == index && !e.feedback);
        let inputs = edges.filter_map(|e| Some((e, graph.vertices.get(e.from as usize)?))).enumerate();
        let inputs: Vec<Value> = inputs
            .map(|(num, (edge, from))| {
                json!({
                    "num": num,
                    "id": from.id,
                    "ship_strategy": ship_strategy(edge.partitioner),
                    "exchange": "pipelined_bounded",
                })
            })
            .collect();
        let mut node = json!({
            "id": vertex.id,
            "parallelism": vertex.parallelism,
            "operator": "",
            "operator_strategy": "",
            // The dashboard puts it into the page as it is.
            "description": escape(&vertex.name()),
            "optimizer_properties": {},
        });
        if !inputs.is_empty() {
            node["inputs"] = inputs.into();
        }
        node
    });
    let nodes: Vec<Value> = nodes.collect();
    json!({ "jid": look.view.id, "name": look.view.name, "type": look.kind(), "nodes": nodes })
}

fn ship_strategy(partitioner: Partitioner) -> &'static str {
    match partitioner {
        Partitioner::Forward => "FORWARD",
        Partitioner::Rebalance => "REBALANCE",
        Partitioner::Rescale => "RESCALE",
        Partitioner::Hash => "HASH",
        Partitioner::Broadcast => "BROADCAST",
        Partitioner::Shuffle => "SHUFFLE",
        Partitioner::Global => "GLOBAL",
        Partitioner::Direct | Partitioner::Custom => "CUSTOM",
    }
}

/// The text as HTML shows it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn html_is_escaped() {
        assert_eq!(super::escape("a -> <b x='\"&\"'>"), "a -&gt; &lt;b x=&#39;&quot;&amp;&quot;&#39;&gt;");
    }
}
