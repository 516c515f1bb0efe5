//! τ-bench tasks on a database of two or three rows that travels with the task.

use super::draft::{Draft, dumps};
use crate::words::Entities;
use serde_json::{Value, json};

const PRODUCTS: [&str; 12] =
    ["lamp", "chair", "mug", "desk", "boots", "kettle", "watch", "tent", "bottle", "mouse", "jacket", "puzzle"];

fn call(name: &str, arguments: Value) -> String {
    format!("<tool_call>\n{}\n</tool_call>", dumps(&json!({"name": name, "arguments": arguments})))
}

/// Appends to a JSON array.
fn append(array: &mut Value, item: Value) {
    if let Some(items) = array.as_array_mut() {
        items.push(item);
    }
}

/// A task whose agent looks something up, writes once, and says so.
fn two_calls(request: String, database: Value, look: (&str, Value, &Value), write: (&str, Value, String)) -> Draft {
    let (look_name, look_args, seen) = look;
    let (write_name, write_args, written) = write;
    Draft {
        fields: json!({
            "instruction": request,
            "actions": [{"name": write_name, "kwargs": write_args}],
            "outputs": [],
            "database": database,
        }),
        request,
        turns: vec![
            (call(look_name, look_args), Some(dumps(seen))),
            (call(write_name, write_args), Some(written)),
            ("It is done.".into(), None),
        ],
    }
}

pub(super) fn retail(e: &mut Entities<'_>) -> Draft {
    let order_id = format!("#W{}", e.number(4));
    let user_id = e.user_id();
    let paid_by = e.payment();
    let other = loop {
        let other = format!("gift_card_{}", e.number(4));
        if other != paid_by {
            break other;
        }
    };
    let first = e.rng.below(PRODUCTS.len());
    let second = (first + 1 + e.rng.below(PRODUCTS.len() - 1)) % PRODUCTS.len();
    let (first_price, second_price) = (10 + e.rng.below(90), 10 + e.rng.below(90));
    let amount = first_price + second_price;
    let items = [(first, e.number(4), first_price), (second, e.number(4), second_price)];
    let kind = e.rng.below(4);
    let delivered = kind == 1 || (kind == 3 && e.rng.chance(0.5));
    let mut order = json!({
        "order_id": order_id,
        "user_id": user_id,
        "items": items.iter().map(|(name, id, price)| json!({"name": PRODUCTS[*name], "item_id": id, "price": price}))
            .collect::<Vec<_>>(),
        "status": if delivered { "delivered" } else { "pending" },
        "payment_history": [{"transaction_type": "payment", "amount": amount, "payment_method_id": paid_by}],
    });
    let method = |id: &str, balance: usize| {
        let source = id.rsplit_once('_').map_or(id, |(source, _)| source);
        match source {
            "gift_card" => json!({"source": source, "id": id, "balance": balance}),
            _ => json!({"source": source, "id": id}),
        }
    };
    let database = json!({
        "products": {},
        "orders": {&order_id: order},
        "users": {&user_id: {"payment_methods": {&paid_by: method(&paid_by, 5), &other: method(&other, 400)}}},
    });
    let look = order.clone();
    let wanted = &items[e.rng.below(2)];
    let mistake = e.rng.chance(0.5);
    let (why, reason) = if mistake {
        ("I ordered it by mistake", "ordered by mistake")
    } else {
        ("I no longer need it", "no longer needed")
    };
    let product = PRODUCTS[wanted.0];

    let request = match kind {
        0 => match e.rng.below(2) {
            0 => format!("Please cancel order {order_id}, {why}."),
            _ => format!("{why}: cancel my order {order_id}."),
        },
        1 => match e.rng.below(2) {
            0 => format!("Please return the {product} of order {order_id}. Refund {paid_by}."),
            _ => format!("I want to return the {product} in {order_id}, refund to {paid_by}."),
        },
        2 => match e.rng.below(2) {
            0 => format!("Please pay order {order_id} with {other} instead."),
            _ => format!("Change the payment of {order_id} to {other}."),
        },
        _ => format!("Cancel order {order_id}, {why}. If it was delivered, return the {product}. Refund {paid_by}."),
    };
    let write = if kind == 2 {
        let history = &mut order["payment_history"];
        append(history, json!({"transaction_type": "payment", "amount": amount, "payment_method_id": other}));
        append(history, json!({"transaction_type": "refund", "amount": amount, "payment_method_id": paid_by}));
        ("modify_pending_order_payment", json!({"order_id": order_id, "payment_method_id": other}))
    } else if delivered {
        order["status"] = "return requested".into();
        order["return_items"] = json!([wanted.1]);
        order["return_payment_method_id"] = json!(paid_by);
        (
            "return_delivered_order_items",
            json!({"order_id": order_id, "item_ids": [wanted.1], "payment_method_id": paid_by}),
        )
    } else {
        order["status"] = "cancelled".into();
        order["cancel_reason"] = reason.into();
        append(
            &mut order["payment_history"],
            json!({"transaction_type": "refund", "amount": amount, "payment_method_id": paid_by}),
        );
        ("cancel_pending_order", json!({"order_id": order_id, "reason": reason}))
    };
    two_calls(
        request,
        database,
        ("get_order_details", json!({"order_id": order_id}), &look),
        (write.0, write.1, dumps(&order)),
    )
}

pub(super) fn airline(e: &mut Entities<'_>) -> Draft {
    let reservation_id = e.reservation();
    let user_id = e.user_id();
    let payment = format!("credit_card_{}", e.number(4));
    let passengers: Vec<_> = (0..1 + e.rng.below(3)).map(|_| json!({"first_name": e.name()})).collect();
    let bags = e.rng.below(4);
    let price = 100 + 10 * e.rng.below(40);
    let mut reservation = json!({
        "reservation_id": reservation_id,
        "user_id": user_id,
        "passengers": passengers,
        "total_baggages": bags,
        "nonfree_baggages": 0,
        "payment_history": [{"payment_id": payment, "amount": price}],
    });
    let database = json!({
        "flights": {},
        "reservations": {&reservation_id: reservation},
        "users": {&user_id: {"payment_methods": {&payment: {"source": "credit_card", "id": payment}},
                             "reservations": [reservation_id]}},
    });
    let look = reservation.clone();
    let (name, request, arguments, written) = match e.rng.below(3) {
        0 => {
            append(&mut reservation["payment_history"], json!({"payment_id": payment, "amount": -(price as i64)}));
            reservation["status"] = "cancelled".into();
            let request = match e.rng.below(2) {
                0 => format!("Please cancel reservation {reservation_id}."),
                _ => format!("Cancel my trip {reservation_id}."),
            };
            ("cancel_reservation", request, json!({"reservation_id": reservation_id}), dumps(&reservation))
        }
        1 => {
            let more = 1 + e.rng.below(3);
            reservation["total_baggages"] = (bags + more).into();
            reservation["nonfree_baggages"] = more.into();
            append(&mut reservation["payment_history"], json!({"payment_id": payment, "amount": 50 * more}));
            let request = match e.rng.below(2) {
                0 => format!("Please add {more} bags to reservation {reservation_id}, paid with {payment}."),
                _ => format!("I need {more} more bags on {reservation_id}. Use {payment}."),
            };
            let arguments = json!({"reservation_id": reservation_id, "total_baggages": bags + more,
                                   "nonfree_baggages": more, "payment_id": payment});
            ("update_reservation_baggages", request, arguments, dumps(&reservation))
        }
        _ => {
            let amount = 50 * passengers.len();
            let request = format!("My flight {reservation_id} was late. Send a certificate, 50 per passenger.");
            let written = format!("Certificate certificate_3221322 added to user {user_id} with amount {amount}.");
            ("send_certificate", request, json!({"user_id": user_id, "amount": amount}), written)
        }
    };
    two_calls(
        request,
        database,
        ("get_reservation_details", json!({"reservation_id": reservation_id}), &look),
        (name, arguments, written),
    )
}
