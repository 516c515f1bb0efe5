//! The sixteen tools of retail: sierra-research/tau-bench@59a200c:`tau_bench/envs/retail/tools`.
//!
//! Bodies follow upstream step by step: an exception halfway leaves the database as changed so far, as it does there.

use crate::calculate::calculate;
use crate::database::Database;
use crate::python::{
    Arguments, Num, Raised, Result, contains, equal, extend, item, item_mut, iterate, key, len, less, lookup,
    same_lowered, subtract, text, type_name,
};
use rolegraft_spans::python_json::dumps;
use serde_json::{Map, Value, json};

pub(crate) type Body = fn(&mut Database, &Arguments<'_>) -> Result<String>;

/// Name, upstream's class, parameters, body.
pub(crate) const TOOLS: [(&str, &str, &[&str], Body); 16] = [
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
    ("get_order_details", "GetOrderDetails", &["order_id"], |d, a| details(d, "orders", a.get("order_id"), "order")),
    ("get_product_details", "GetProductDetails", &["product_id"], |d, a| {
        details(d, "products", a.get("product_id"), "product")
    }),
    ("get_user_details", "GetUserDetails", &["user_id"], |d, a| details(d, "users", a.get("user_id"), "user")),
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

/// What a check of upstream's finds wrong, as the observation it returns.
pub(crate) type Checked<T> = std::result::Result<T, String>;

/// Unwraps a check, or returns its observation.
macro_rules! pass {
    ($checked:expr) => {
        match $checked {
            Ok(value) => value,
            Err(observation) => return Ok(observation),
        }
    };
}
pub(crate) use pass;

pub(crate) fn say(message: &str) -> Result<String> {
    Ok(format!("Error: {message}"))
}

/// A row as JSON, or that there is no such `what`.
pub(crate) fn details(data: &Database, table: &str, by: &Value, what: &str) -> Result<String> {
    Ok(data.find(table, by)?.map_or_else(|| format!("Error: {what} not found"), dumps))
}

/// The key of an order that is in `status`.
fn order_in<'a>(data: &Database, by: &'a Value, status: &str, otherwise: &str) -> Result<Checked<&'a str>> {
    let (Some(order), Some(id)) = (data.find("orders", by)?, key(by)?) else {
        return Ok(Err("Error: order not found".into()));
    };
    Ok(if item(order, "status")? == status { Ok(id) } else { Err(format!("Error: {otherwise}")) })
}

fn order<'d>(data: &'d Database, id: &str) -> Result<&'d Value> {
    data.row("orders", id).ok_or_else(|| Raised(crate::python::str_repr(id)))
}

/// The payment methods of an order's user, and the user's key.
fn methods_of<'d>(data: &'d Database, order: &'d Value) -> Result<(&'d Value, &'d str)> {
    let user = item(order, "user_id")?;
    let methods = item(data.get("users", user)?, "payment_methods")?;
    Ok((methods, key(user)?.unwrap_or_default()))
}

/// `user["payment_methods"][method]["balance"] OPERATOR= amount`, then rounded to cents.
fn change_balance(data: &mut Database, user: &str, method: &str, operator: &str, amount: &Value) -> Result<()> {
    let methods = item_mut(data.get_mut("users", user)?, "payment_methods")?;
    let balance = item_mut(item_mut(methods, method)?, "balance")?;
    let left = Num::of(balance).ok_or_else(|| Raised(format!("'{}' is no balance", type_name(balance))))?;
    *balance = left.and(operator, amount)?.round2().value();
    Ok(())
}

fn cancel_pending_order(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = pass!(order_in(data, a.get("order_id"), "pending", "non-pending order cannot be cancelled")?);
    let reason = a.get("reason");
    if !["no longer needed", "ordered by mistake"].iter().any(|r| reason == r) {
        return say("invalid reason");
    }
    let mut refunds = Vec::new();
    for payment in iterate(item(order(data, id)?, "payment_history")?)? {
        let method = item(&payment, "payment_method_id")?;
        let amount = item(&payment, "amount")?;
        refunds.push(json!({"transaction_type": "refund", "amount": amount, "payment_method_id": method}));
        let method = key(method)?.unwrap_or_default();
        if method.contains("gift_card") {
            let user = methods_of(data, order(data, id)?)?.1.to_owned();
            change_balance(data, &user, method, "+=", amount)?;
        }
    }
    let order = data.get_mut("orders", id)?;
    order["status"] = "cancelled".into();
    order["cancel_reason"] = reason.clone();
    extend(item_mut(order, "payment_history")?, "extend", refunds)?;
    Ok(dumps(order))
}

/// The first of the items asked for of which the order has too few.
fn missing_item(order: &Value, wanted: &Value) -> Result<Option<Value>> {
    let lines = iterate(item(order, "items")?)?;
    let have: Vec<&Value> = lines.iter().map(|line| item(line, "item_id")).collect::<Result<_>>()?;
    let items = iterate(wanted)?;
    for id in &items {
        if wanted.is_object() {
            return Err(Raised("'dict' object has no attribute 'count'".into()));
        }
        let asked = items.iter().filter(|i| equal(i, id)).count();
        if asked > have.iter().filter(|i| equal(i, id)).count() {
            return Ok(Some(id.clone()));
        }
    }
    Ok(None)
}

/// Where the order's first line of an item is.
fn line_of(order: &Value, id: &Value) -> Result<usize> {
    let lines = iterate(item(order, "items")?)?;
    let at = lines.iter().position(|line| line.get("item_id").is_some_and(|i| equal(i, id)));
    at.ok_or_else(|| Raised("list index out of range".into()))
}

fn variants_of<'d>(data: &'d Database, line: &Value) -> Result<&'d Value> {
    item(data.get("products", item(line, "product_id")?)?, "variants")
}

/// Items that an order gives up for others.
struct Swaps {
    /// Old and new items.
    pairs: Vec<(Value, Value)>,
    /// What the new ones cost more.
    difference: Num,
}

/// What exchanging and modifying items check alike, in upstream's order.
fn swaps(data: &Database, a: &Arguments<'_>, id: &str) -> Result<Checked<Swaps>> {
    let order = order(data, id)?;
    let (old, new) = (a.get("item_ids"), a.get("new_item_ids"));
    if let Some(missing) = missing_item(order, old)? {
        return Ok(Err(format!("Error: {} not found", text(&missing))));
    }
    if len(old)? != len(new)? {
        return Ok(Err("Error: the number of items to be exchanged should match".into()));
    }
    let pairs: Vec<(Value, Value)> = iterate(old)?.into_iter().zip(iterate(new)?).collect();
    let mut difference = Num::Int(0);
    for (old, new) in &pairs {
        let line = &order["items"][line_of(order, old)?];
        let variants = variants_of(data, line)?;
        if !contains(variants, new)? || item(lookup(variants, new)?, "available")? != true {
            return Ok(Err(format!("Error: new item {} not found or available", text(new))));
        }
        let more = subtract(item(lookup(variants, new)?, "price")?, item(line, "price")?)?;
        difference = difference.add(more);
    }
    Ok(Ok(Swaps { pairs, difference }))
}

/// The payment method of an order's user, unless it is a gift card that holds less than `price`.
fn method_that_pays<'a>(
    data: &Database,
    id: &str,
    a: &Arguments<'a>,
    price: &Value,
    otherwise: &str,
) -> Result<Checked<Method<'a>>> {
    let (methods, user) = methods_of(data, order(data, id)?)?;
    let by = a.get("payment_method_id");
    if !contains(methods, by)? {
        return Ok(Err("Error: payment method not found".into()));
    }
    let method = lookup(methods, by)?;
    let gift = item(method, "source")? == "gift_card";
    if gift && less(item(method, "balance")?, price)? {
        return Ok(Err(format!("Error: insufficient gift card balance to pay for the {otherwise}")));
    }
    Ok(Ok(Method { id: key(by)?.unwrap_or_default(), user: user.to_owned(), gift }))
}

struct Method<'a> {
    id: &'a str,
    user: String,
    gift: bool,
}

fn sorted(items: impl Iterator<Item = Value>) -> Value {
    let mut items: Vec<Value> = items.collect();
    items.sort_by_key(text);
    Value::Array(items)
}

fn exchange_delivered_order_items(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = pass!(order_in(data, a.get("order_id"), "delivered", "non-delivered order cannot be exchanged")?);
    let Swaps { pairs, difference } = pass!(swaps(data, a, id)?);
    let difference = difference.round2().value();
    let method = pass!(method_that_pays(data, id, a, &difference, "price difference")?);
    let order = data.get_mut("orders", id)?;
    order["status"] = "exchange requested".into();
    order["exchange_items"] = sorted(pairs.iter().map(|(old, _)| old.clone()));
    order["exchange_new_items"] = sorted(pairs.iter().map(|(_, new)| new.clone()));
    order["exchange_payment_method_id"] = method.id.into();
    order["exchange_price_difference"] = difference;
    Ok(dumps(order))
}

fn find_user_id_by_email(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    for (id, profile) in data.rows("users") {
        if same_lowered(item(profile, "email")?, a.get("email"))? {
            return Ok(id.to_owned());
        }
    }
    say("user not found")
}

fn find_user_id_by_name_zip(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    for (id, profile) in data.rows("users") {
        let name = item(profile, "name")?;
        if same_lowered(item(name, "first_name")?, a.get("first_name"))?
            && same_lowered(item(name, "last_name")?, a.get("last_name"))?
            && equal(item(item(profile, "address")?, "zip")?, a.get("zip"))
        {
            return Ok(id.to_owned());
        }
    }
    say("user not found")
}

fn list_all_product_types(data: &mut Database, _: &Arguments<'_>) -> Result<String> {
    let mut products = std::collections::BTreeMap::new();
    for (_, product) in data.rows("products") {
        products.insert(text(item(product, "name")?), item(product, "product_id")?.clone());
    }
    Ok(dumps(&Value::Object(products.into_iter().collect())))
}

fn address(a: &Arguments<'_>) -> Value {
    let fields = ["address1", "address2", "city", "state", "country", "zip"];
    Value::Object(fields.iter().map(|f| ((*f).to_owned(), a.get(f).clone())).collect::<Map<_, _>>())
}

fn modify_pending_order_address(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = pass!(order_in(data, a.get("order_id"), "pending", "non-pending order cannot be modified")?);
    let order = data.get_mut("orders", id)?;
    order["address"] = address(a);
    Ok(dumps(order))
}

fn modify_user_address(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let by = a.get("user_id");
    let (Some(_), Some(id)) = (data.find("users", by)?, key(by)?) else { return say("user not found") };
    let user = data.get_mut("users", id)?;
    user["address"] = address(a);
    Ok(dumps(user))
}

fn modify_pending_order_items(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = pass!(order_in(data, a.get("order_id"), "pending", "non-pending order cannot be modified")?);
    let Swaps { pairs, difference } = pass!(swaps(data, a, id)?);
    let method = pass!(method_that_pays(data, id, a, &difference.value(), "new item")?);
    let kind = if difference.float() > 0.0 { "payment" } else { "refund" };
    let amount = if difference.float() < 0.0 { difference.negative() } else { difference };
    extend(
        item_mut(data.get_mut("orders", id)?, "payment_history")?,
        "append",
        [json!({"transaction_type": kind, "amount": amount.value(), "payment_method_id": method.id})],
    )?;
    if method.gift {
        change_balance(data, &method.user, method.id, "-=", &difference.value())?;
    }
    for (old, new) in &pairs {
        // Upstream looks the line up again, in the order as changed so far, and renames it before it looks for a price.
        let at = line_of(order(data, id)?, old)?;
        data.get_mut("orders", id)?["items"][at]["item_id"] = new.clone();
        let variant = lookup(variants_of(data, &order(data, id)?["items"][at])?, new)?;
        let (price, options) = (item(variant, "price")?.clone(), item(variant, "options")?.clone());
        let line = &mut data.get_mut("orders", id)?["items"][at];
        line["price"] = price;
        line["options"] = options;
    }
    let order = data.get_mut("orders", id)?;
    order["status"] = "pending (item modified)".into();
    Ok(dumps(order))
}

fn modify_pending_order_payment(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = pass!(order_in(data, a.get("order_id"), "pending", "non-pending order cannot be modified")?);
    let by = a.get("payment_method_id");
    if !contains(methods_of(data, order(data, id)?)?.0, by)? {
        return say("payment method not found");
    }
    let history = item(order(data, id)?, "payment_history")?;
    let first = history.get(0).ok_or_else(|| Raised("list index out of range".into()))?.clone();
    if len(history)? > 1 || item(&first, "transaction_type")? != "payment" {
        return say("there should be exactly one payment for a pending order");
    }
    let before = item(&first, "payment_method_id")?;
    if equal(before, by) {
        return say("the new payment method should be different from the current one");
    }
    let amount = item(&first, "amount")?;
    let method = pass!(method_that_pays(data, id, a, amount, "order")?);
    extend(
        item_mut(data.get_mut("orders", id)?, "payment_history")?,
        "extend",
        [
            json!({"transaction_type": "payment", "amount": amount, "payment_method_id": method.id}),
            json!({"transaction_type": "refund", "amount": amount, "payment_method_id": before}),
        ],
    )?;
    if method.gift {
        change_balance(data, &method.user, method.id, "-=", amount)?;
    }
    let before = key(before)?.unwrap_or_default();
    if before.contains("gift_card") {
        change_balance(data, &method.user, before, "+=", amount)?;
    }
    Ok(dumps(order(data, id)?))
}

fn return_delivered_order_items(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = pass!(order_in(data, a.get("order_id"), "delivered", "non-delivered order cannot be returned")?);
    let by = a.get("payment_method_id");
    let order = order(data, id)?;
    if !contains(methods_of(data, order)?.0, by)? {
        return say("payment method not found");
    }
    let method = key(by)?.unwrap_or_default();
    if !method.contains("gift_card") {
        let first = item(order, "payment_history")?.get(0);
        let first = first.ok_or_else(|| Raised("list index out of range".into()))?;
        if item(first, "payment_method_id")? != method {
            return say("payment method should be either the original payment method or a gift card");
        }
    }
    let items = a.get("item_ids");
    if missing_item(order, items)?.is_some() {
        return say("some item not found");
    }
    let order = data.get_mut("orders", id)?;
    order["status"] = "return requested".into();
    order["return_items"] = sorted(iterate(items)?.into_iter());
    order["return_payment_method_id"] = method.into();
    Ok(dumps(order))
}
