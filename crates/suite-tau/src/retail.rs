//! The sixteen tools of retail: sierra-research/tau-bench@59a200c:`tau_bench/envs/retail/tools`.

use crate::database::Database;
use crate::python::{Arguments, Num, Raised, Result, calculate, equal, item, item_mut, iterate, key, len, text};
use rolegraft_spans::python_json::dumps;
use serde_json::{Map, Value, json};

type Tool = fn(&mut Database, &Arguments<'_>) -> Result<String>;

/// Name, upstream's class, parameters, body.
pub(crate) const TOOLS: [(&str, &str, &[&str], Tool); 16] = [
    ("calculate", "Calculate", &["expression"], |_, a| calculate(a.get("expression"))),
    ("cancel_pending_order", "CancelPendingOrder", &["order_id", "reason"], cancel_pending_order),
    (
        "exchange_delivered_order_items",
        "ExchangeDeliveredOrderItems",
        &["order_id", "item_ids", "new_item_ids", "payment_method_id"],
        exchange_delivered_order_items,
    ),
    ("find_user_id_by_email", "FindUserIdByEmail", &["email"], find_user_id_by_email),
    ("find_user_id_by_name_zip", "FindUserIdByNameZip", &["first_name", "last_name", "zip"], find_user_id_by_name_zip),
    ("get_order_details", "GetOrderDetails", &["order_id"], |d, a| details(d, "orders", a.key("order_id")?, "order")),
    ("get_product_details", "GetProductDetails", &["product_id"], |d, a| {
        details(d, "products", a.key("product_id")?, "product")
    }),
    ("get_user_details", "GetUserDetails", &["user_id"], |d, a| details(d, "users", a.key("user_id")?, "user")),
    ("list_all_product_types", "ListAllProductTypes", &[], list_all_product_types),
    (
        "modify_pending_order_address",
        "ModifyPendingOrderAddress",
        &["order_id", "address1", "address2", "city", "state", "country", "zip"],
        modify_pending_order_address,
    ),
    (
        "modify_pending_order_items",
        "ModifyPendingOrderItems",
        &["order_id", "item_ids", "new_item_ids", "payment_method_id"],
        modify_pending_order_items,
    ),
    (
        "modify_pending_order_payment",
        "ModifyPendingOrderPayment",
        &["order_id", "payment_method_id"],
        modify_pending_order_payment,
    ),
    (
        "modify_user_address",
        "ModifyUserAddress",
        &["user_id", "address1", "address2", "city", "state", "country", "zip"],
        modify_user_address,
    ),
    (
        "return_delivered_order_items",
        "ReturnDeliveredOrderItems",
        &["order_id", "item_ids", "payment_method_id"],
        return_delivered_order_items,
    ),
    ("think", "Think", &["thought"], |_, _| Ok(String::new())),
    ("transfer_to_human_agents", "TransferToHumanAgents", &["summary"], |_, _| Ok("Transfer successful".into())),
];

fn say(message: &str) -> Result<String> {
    Ok(format!("Error: {message}"))
}

pub(crate) fn details(data: &Database, table: &str, id: &str, what: &str) -> Result<String> {
    Ok(data.row(table, id).map_or_else(|| format!("Error: {what} not found"), dumps))
}

/// The order and whether its status is `status`; the message upstream returns if not.
fn order_in(data: &Database, id: &str, status: &str, otherwise: &str) -> Result<std::result::Result<Value, String>> {
    let Some(order) = data.row("orders", id) else { return Ok(Err("Error: order not found".into())) };
    Ok(if item(order, "status")? == status { Ok(order.clone()) } else { Err(format!("Error: {otherwise}")) })
}

fn user_of<'d>(data: &'d Database, order: &Value) -> Result<(&'d Value, String)> {
    let id = key(item(order, "user_id")?)?.to_owned();
    Ok((data.get("users", &id)?, id))
}

fn method_of(data: &Database, order: &Value, id: &str) -> Result<Option<(Value, String)>> {
    let (user, user_id) = user_of(data, order)?;
    Ok(item(user, "payment_methods")?.get(id).map(|m| (m.clone(), user_id)))
}

/// Adds to a gift card's balance and rounds it to cents.
fn add_balance(data: &mut Database, user: &str, method: &str, amount: Num) -> Result<()> {
    let methods = item_mut(data.get_mut("users", user)?, "payment_methods")?;
    let balance = item_mut(item_mut(methods, method)?, "balance")?;
    *balance = Num::operand(balance, "float", "+=")?.add(amount).round2().value();
    Ok(())
}

fn push(list: &mut Value, more: impl IntoIterator<Item = Value>) -> Result<()> {
    list.as_array_mut().ok_or_else(|| Raised("object has no attribute 'append'".into()))?.extend(more);
    Ok(())
}

fn cancel_pending_order(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("order_id")?;
    let order = match order_in(data, id, "pending", "non-pending order cannot be cancelled")? {
        Ok(order) => order,
        Err(message) => return Ok(message),
    };
    let reason = a.get("reason");
    if !["no longer needed", "ordered by mistake"].iter().any(|r| reason == r) {
        return say("invalid reason");
    }
    let mut refunds = Vec::new();
    for payment in iterate(item(&order, "payment_history")?)? {
        let method = key(item(&payment, "payment_method_id")?)?;
        let amount = item(&payment, "amount")?;
        refunds.push(json!({"transaction_type": "refund", "amount": amount, "payment_method_id": method}));
        if method.contains("gift_card") {
            let (_, user) = user_of(data, &order)?;
            add_balance(data, &user, method, Num::operand(amount, "float", "+=")?)?;
        }
    }
    let order = data.get_mut("orders", id)?;
    order["status"] = "cancelled".into();
    order["cancel_reason"] = reason.clone();
    push(item_mut(order, "payment_history")?, refunds)?;
    Ok(dumps(order))
}

/// Checks items to be given up; the message upstream returns if one is not in the order.
fn missing_item(order: &Value, wanted: &[Value]) -> Result<Option<Value>> {
    let mut have = Vec::new();
    for i in iterate(item(order, "items")?)? {
        have.push(item(&i, "item_id")?.clone());
    }
    let count = |list: &[Value], id: &Value| list.iter().filter(|i| equal(i, id)).count();
    Ok(wanted.iter().find(|id| count(wanted, id) > count(&have, id)).cloned())
}

/// The variant a line of an order would become: (its product, old price, new variant).
fn new_variant(data: &Database, order: &Value, old: &Value, new: &Value) -> Result<Option<(Value, Value)>> {
    let items = iterate(item(order, "items")?)?;
    let line = items.iter().find(|i| i.get("item_id").is_some_and(|id| equal(id, old)));
    let line = line.ok_or_else(|| Raised("list index out of range".into()))?;
    let product = data.get("products", key(item(line, "product_id")?)?)?;
    let variant = item(product, "variants")?.get(key(new)?);
    let Some(variant) = variant.filter(|v| v.get("available") == Some(&Value::Bool(true))) else { return Ok(None) };
    Ok(Some((item(line, "price")?.clone(), variant.clone())))
}

fn price_difference(
    data: &Database,
    order: &Value,
    old: &[Value],
    new: &[Value],
) -> Result<std::result::Result<Num, String>> {
    let mut difference = Num::Int(0);
    for (old, new) in old.iter().zip(new) {
        let Some((old_price, variant)) = new_variant(data, order, old, new)? else {
            return Ok(Err(format!("Error: new item {} not found or available", text(new))));
        };
        let new_price = Num::operand(item(&variant, "price")?, "float", "-")?;
        difference = difference.add(new_price.sub(Num::operand(&old_price, "float", "-")?));
    }
    Ok(Ok(difference))
}

fn sorted(items: &[Value]) -> Value {
    let mut items = items.to_vec();
    items.sort_by_key(text);
    Value::Array(items)
}

fn short_of(method: &Value, price: Num) -> Result<bool> {
    Ok(item(method, "source")? == "gift_card" && Num::operand(item(method, "balance")?, "float", "<")?.less(price))
}

/// Items of an order and what they are to become.
struct Swap {
    order: Value,
    old: Vec<Value>,
    new: Vec<Value>,
    difference: Num,
}

/// What exchanging and modifying items check alike, in upstream's order; the message upstream returns if one fails.
fn swap(
    data: &Database,
    a: &Arguments<'_>,
    status: &str,
    otherwise: &str,
) -> Result<std::result::Result<Swap, String>> {
    let order = match order_in(data, a.key("order_id")?, status, otherwise)? {
        Ok(order) => order,
        Err(message) => return Ok(Err(message)),
    };
    let (old, new) = (iterate(a.get("item_ids"))?, iterate(a.get("new_item_ids"))?);
    if let Some(missing) = missing_item(&order, &old)? {
        return Ok(Err(format!("Error: {} not found", text(&missing))));
    }
    if old.len() != new.len() {
        return Ok(Err("Error: the number of items to be exchanged should match".into()));
    }
    Ok(price_difference(data, &order, &old, &new)?.map(|difference| Swap { order, old, new, difference }))
}

fn exchange_delivered_order_items(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("order_id")?;
    let Swap { order, old, new, difference } =
        match swap(data, a, "delivered", "non-delivered order cannot be exchanged")? {
            Ok(swap) => swap,
            Err(message) => return Ok(message),
        };
    let difference = difference.round2();
    let method_id = a.key("payment_method_id")?;
    let Some((method, _)) = method_of(data, &order, method_id)? else { return say("payment method not found") };
    if short_of(&method, difference)? {
        return say("insufficient gift card balance to pay for the price difference");
    }
    let order = data.get_mut("orders", id)?;
    order["status"] = "exchange requested".into();
    order["exchange_items"] = sorted(&old);
    order["exchange_new_items"] = sorted(&new);
    order["exchange_payment_method_id"] = method_id.into();
    order["exchange_price_difference"] = difference.value();
    Ok(dumps(order))
}

fn lower(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_lowercase)
        .ok_or_else(|| Raised(format!("'{}' object has no attribute 'lower'", crate::python::type_name(value))))
}

fn find_user_id_by_email(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    for (id, profile) in data.rows("users") {
        if lower(item(profile, "email")?)? == lower(a.get("email"))? {
            return Ok(id.to_owned());
        }
    }
    say("user not found")
}

fn find_user_id_by_name_zip(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    for (id, profile) in data.rows("users") {
        let name = item(profile, "name")?;
        if lower(item(name, "first_name")?)? == lower(a.get("first_name"))?
            && lower(item(name, "last_name")?)? == lower(a.get("last_name"))?
            && equal(item(item(profile, "address")?, "zip")?, a.get("zip"))
        {
            return Ok(id.to_owned());
        }
    }
    say("user not found")
}

fn list_all_product_types(data: &mut Database, _: &Arguments<'_>) -> Result<String> {
    let mut products = Vec::new();
    for (_, product) in data.rows("products") {
        products.push((key(item(product, "name")?)?.to_owned(), item(product, "product_id")?.clone()));
    }
    products.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(dumps(&Value::Object(products.into_iter().collect::<Map<_, _>>())))
}

fn address(a: &Arguments<'_>) -> Value {
    let fields = ["address1", "address2", "city", "state", "country", "zip"];
    Value::Object(fields.iter().map(|f| ((*f).to_owned(), a.get(f).clone())).collect())
}

fn modify_pending_order_address(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("order_id")?;
    if let Err(message) = order_in(data, id, "pending", "non-pending order cannot be modified")? {
        return Ok(message);
    }
    let order = data.get_mut("orders", id)?;
    order["address"] = address(a);
    Ok(dumps(order))
}

fn modify_user_address(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("user_id")?;
    if !data.has("users", id) {
        return say("user not found");
    }
    let user = data.get_mut("users", id)?;
    user["address"] = address(a);
    Ok(dumps(user))
}

fn modify_pending_order_items(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("order_id")?;
    let Swap { order, old, new, difference } = match swap(data, a, "pending", "non-pending order cannot be modified")? {
        Ok(swap) => swap,
        Err(message) => return Ok(message),
    };
    let method_id = a.key("payment_method_id")?;
    let Some((method, user)) = method_of(data, &order, method_id)? else { return say("payment method not found") };
    if short_of(&method, difference)? {
        return say("insufficient gift card balance to pay for the new item");
    }
    let kind = if difference.float() > 0.0 { "payment" } else { "refund" };
    let amount = if difference.float() < 0.0 { Num::Int(0).sub(difference) } else { difference };
    if method["source"] == "gift_card" {
        add_balance(data, &user, method_id, Num::Int(0).sub(difference))?;
    }
    let mut order = order;
    push(
        item_mut(&mut order, "payment_history")?,
        [json!({"transaction_type": kind, "amount": amount.value(), "payment_method_id": method_id})],
    )?;
    for (old, new) in old.iter().zip(&new) {
        // Upstream looks the line up again, in the order as changed so far.
        let Some((_, variant)) = new_variant(data, &order, old, new)? else { continue };
        let lines = order["items"].as_array_mut().into_iter().flatten();
        for line in lines.filter(|l| equal(&l["item_id"], old)).take(1) {
            line["item_id"] = new.clone();
            line["price"] = variant["price"].clone();
            line["options"] = variant["options"].clone();
        }
    }
    order["status"] = "pending (item modified)".into();
    *data.get_mut("orders", id)? = order.clone();
    Ok(dumps(&order))
}

fn modify_pending_order_payment(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("order_id")?;
    let order = match order_in(data, id, "pending", "non-pending order cannot be modified")? {
        Ok(order) => order,
        Err(message) => return Ok(message),
    };
    let method_id = a.key("payment_method_id")?;
    let Some((method, user)) = method_of(data, &order, method_id)? else { return say("payment method not found") };
    let history = item(&order, "payment_history")?;
    let first = history.get(0).ok_or_else(|| Raised("list index out of range".into()))?.clone();
    if len(history)? > 1 || item(&first, "transaction_type")? != "payment" {
        return say("there should be exactly one payment for a pending order");
    }
    let old_id = key(item(&first, "payment_method_id")?)?;
    if old_id == method_id {
        return say("the new payment method should be different from the current one");
    }
    let amount = item(&first, "amount")?;
    let price = Num::operand(amount, "float", "<")?;
    if short_of(&method, price)? {
        return say("insufficient gift card balance to pay for the order");
    }
    if method["source"] == "gift_card" {
        add_balance(data, &user, method_id, Num::Int(0).sub(price))?;
    }
    if old_id.contains("gift_card") {
        add_balance(data, &user, old_id, price)?;
    }
    let order = data.get_mut("orders", id)?;
    push(
        item_mut(order, "payment_history")?,
        [
            json!({"transaction_type": "payment", "amount": amount, "payment_method_id": method_id}),
            json!({"transaction_type": "refund", "amount": amount, "payment_method_id": old_id}),
        ],
    )?;
    Ok(dumps(order))
}

fn return_delivered_order_items(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("order_id")?;
    let order = match order_in(data, id, "delivered", "non-delivered order cannot be returned")? {
        Ok(order) => order,
        Err(message) => return Ok(message),
    };
    let method_id = a.key("payment_method_id")?;
    if method_of(data, &order, method_id)?.is_none() {
        return say("payment method not found");
    }
    let paid_with = item(&order, "payment_history")?.get(0).ok_or_else(|| Raised("list index out of range".into()))?;
    if !method_id.contains("gift_card") && item(paid_with, "payment_method_id")? != method_id {
        return say("payment method should be either the original payment method or a gift card");
    }
    let items = iterate(a.get("item_ids"))?;
    if missing_item(&order, &items)?.is_some() {
        return say("some item not found");
    }
    let order = data.get_mut("orders", id)?;
    order["status"] = "return requested".into();
    order["return_items"] = sorted(&items);
    order["return_payment_method_id"] = method_id.into();
    Ok(dumps(order))
}
