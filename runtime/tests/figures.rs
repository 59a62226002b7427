//! What single subscriptions and consumers show of themselves.

mod support;

use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::scripted::{ScriptedCourier, Step};
use punchline_engine::command::Action;
use punchline_engine::dispatch::{EventSelection, Subscription};
use punchline_runtime::dispatch::figures::Figures;
use punchline_runtime::node::Node;
use punchline_storage::memory::MemoryDisk;
use support::*;

fn figures(node: &Node) -> Vec<Figures> {
    node.dispatcher().figures(1_000, |_| true)
}

#[tokio::test]
async fn figures_come_and_go_with_their_subscription() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let bad = "http://bad.example/";
    courier.always(bad, Step::Status(500));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    accepted(&node, subscribe(&node, 1, HOOK, &["points.*"], &[])).await;
    accepted(&node, subscribe(&node, 2, bad, &["points.*"], &[60_000])).await;
    accepted(&node, subscribe(&node, 3, bad, &["points.*"], &[])).await;
    let consumer = Action::CreateSubscription {
        subscription: Subscription {
            event_types: EventSelection::parse("event_types", vec!["points.*".into()]).expect("types"),
            consumer: "billing".into(),
            ..Subscription::to(subscription_id(4), "")
        },
        secret: node.sealer().seal(punchline_runtime::dispatch::target::SIGNING_SECRET, &[3; 32]),
        owed_after: None,
    };
    accepted(&node, consumer).await;
    accepted(&node, consume("c1", 1, "coffee", 1)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let shown = until("settled, waiting, dead", || {
        let shown = figures(&node);
        let now: Vec<_> = shown.iter().map(|f| (f.pending > 0, f.dead_letters)).collect();
        (now == [(false, 0), (true, 0), (false, 1), (true, 0)]).then_some(shown)
    });
    let shown = shown.await;
    assert_eq!(shown.iter().map(|f| f.id).collect::<Vec<_>>(), (1..=4).map(subscription_id).collect::<Vec<_>>());
    assert_eq!((shown[0].lag_events, shown[0].oldest_pending_ms), (0, 0));
    assert!(shown[1].pending == 1 && shown[1].oldest_pending_ms >= 10, "{:?}", shown[1]);
    // Nobody is connected: the consumer has loaded nothing, and all behind its cursor counts.
    assert!(shown[3].lag_events >= 2 && shown[3].oldest_pending_ms >= 10, "{:?}", shown[3]);
    let consumers = node.dispatcher().figures(100, |consumer| !consumer.is_empty());
    assert_eq!(consumers.iter().map(|f| f.consumer.as_str()).collect::<Vec<_>>(), ["billing"]);
    assert_eq!(node.dispatcher().figures(2, |_| true).len(), 2, "capped");

    accepted(&node, Action::DeleteSubscription { subscription_id: subscription_id(2) }).await;
    accepted(&node, Action::DeleteSubscription { subscription_id: subscription_id(4) }).await;
    until("two are gone", || (figures(&node).len() == 2).then_some(())).await;
    node.close().await;
}
