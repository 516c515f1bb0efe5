//! The fourteen tools of the airline: sierra-research/tau-bench@59a200c:`tau_bench/envs/airline/tools`.

use crate::database::Database;
use crate::python::{Arguments, Num, Raised, Result, calculate, equal, item, item_mut, iterate, key, len, text};
use crate::retail::details;
use rolegraft_spans::python_json::dumps;
use serde_json::{Map, Value, json};

type Tool = fn(&mut Database, &Arguments<'_>) -> Result<String>;

/// Name, upstream's class, parameters, body.
pub(crate) const TOOLS: [(&str, &str, &[&str], Tool); 14] = [
    (
        "book_reservation",
        "BookReservation",
        &[
            "user_id",
            "origin",
            "destination",
            "flight_type",
            "cabin",
            "flights",
            "passengers",
            "payment_methods",
            "total_baggages",
            "nonfree_baggages",
            "insurance",
        ],
        book_reservation,
    ),
    ("calculate", "Calculate", &["expression"], |_, a| calculate(a.get("expression"))),
    ("cancel_reservation", "CancelReservation", &["reservation_id"], cancel_reservation),
    ("get_reservation_details", "GetReservationDetails", &["reservation_id"], |d, a| {
        details(d, "reservations", a.key("reservation_id")?, "user")
    }),
    ("get_user_details", "GetUserDetails", &["user_id"], |d, a| details(d, "users", a.key("user_id")?, "user")),
    ("list_all_airports", "ListAllAirports", &[], |_, _| {
        let map: Map<String, Value> =
            AIRPORTS.iter().map(|(code, city)| ((*code).to_owned(), (*city).into())).collect();
        Ok(dumps(&Value::Object(map)))
    }),
    ("search_direct_flight", "SearchDirectFlight", &["origin", "destination", "date"], search_direct_flight),
    ("search_onestop_flight", "SearchOnestopFlight", &["origin", "destination", "date"], search_onestop_flight),
    ("send_certificate", "SendCertificate", &["user_id", "amount"], send_certificate),
    ("think", "Think", &["thought"], |_, _| Ok(String::new())),
    ("transfer_to_human_agents", "TransferToHumanAgents", &["summary"], |_, _| Ok("Transfer successful".into())),
    (
        "update_reservation_baggages",
        "UpdateReservationBaggages",
        &["reservation_id", "total_baggages", "nonfree_baggages", "payment_id"],
        update_reservation_baggages,
    ),
    (
        "update_reservation_flights",
        "UpdateReservationFlights",
        &["reservation_id", "cabin", "flights", "payment_id"],
        update_reservation_flights,
    ),
    (
        "update_reservation_passengers",
        "UpdateReservationPassengers",
        &["reservation_id", "passengers"],
        update_reservation_passengers,
    ),
];

const AIRPORTS: [(&str, &str); 20] = [
    ("SFO", "San Francisco"),
    ("JFK", "New York"),
    ("LAX", "Los Angeles"),
    ("ORD", "Chicago"),
    ("DFW", "Dallas"),
    ("DEN", "Denver"),
    ("SEA", "Seattle"),
    ("ATL", "Atlanta"),
    ("MIA", "Miami"),
    ("BOS", "Boston"),
    ("PHX", "Phoenix"),
    ("IAH", "Houston"),
    ("LAS", "Las Vegas"),
    ("MCO", "Orlando"),
    ("EWR", "Newark"),
    ("CLT", "Charlotte"),
    ("MSP", "Minneapolis"),
    ("DTW", "Detroit"),
    ("PHL", "Philadelphia"),
    ("LGA", "LaGuardia"),
];

fn say(message: &str) -> Result<String> {
    Ok(format!("Error: {message}"))
}

fn times(price: &Value, count: usize) -> Result<Num> {
    Ok(Num::operand(price, "int", "+=")?.mul(Num::Int(count as i64)))
}

/// Prices a new flight and fills in its price, origin and destination; the message upstream returns if it cannot.
fn price_flight(
    data: &Database,
    flight: &mut Value,
    cabin: &Value,
    seats: usize,
) -> Result<std::result::Result<Num, String>> {
    let number = key(item(flight, "flight_number")?)?.to_owned();
    let Some(known) = data.row("flights", &number) else { return Ok(Err(format!("Error: flight {number} not found"))) };
    let date = key(item(flight, "date")?)?.to_owned();
    let Some(day) = item(known, "dates")?.get(&date) else {
        return Ok(Err(format!("Error: flight {number} not found on date {date}")));
    };
    if item(day, "status")? != "available" {
        return Ok(Err(format!("Error: flight {number} not available on date {date}")));
    }
    let free = Num::operand(item(item(day, "available_seats")?, key(cabin)?)?, "int", "<")?;
    if free.less(Num::Int(seats as i64)) {
        return Ok(Err(format!("Error: not enough seats on flight {number}")));
    }
    let price = item(item(day, "prices")?, key(cabin)?)?.clone();
    let (origin, destination) = (item(known, "origin")?.clone(), item(known, "destination")?.clone());
    let total = times(&price, seats)?;
    flight["price"] = price;
    flight["origin"] = origin;
    flight["destination"] = destination;
    Ok(Ok(total))
}

fn book_reservation(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let user_id = a.key("user_id")?;
    if !data.has("users", user_id) {
        return say("user not found");
    }
    let id = ["HATHAT", "HATHAU"].into_iter().find(|id| !data.has("reservations", id)).unwrap_or("HATHAV");
    let (cabin, passengers, payments) = (a.get("cabin"), a.get("passengers"), a.get("payment_methods"));
    let mut flights = a.get("flights").clone();
    let mut total = Num::Int(0);
    iterate(&flights)?;
    for flight in flights.as_array_mut().into_iter().flatten() {
        match price_flight(data, flight, cabin, len(passengers)?)? {
            Ok(price) => total = total.add(price),
            Err(message) => return Ok(message),
        }
    }
    if a.get("insurance") == "yes" {
        total = total.add(Num::Int(30 * len(passengers)? as i64));
    }
    total = total.add(Num::Int(50).mul(Num::operand(a.get("nonfree_baggages"), "int", "*")?));
    let methods = item(data.get("users", user_id)?, "payment_methods")?.clone();
    let mut paid = Num::Int(0);
    for payment in iterate(payments)? {
        let method_id = key(item(&payment, "payment_id")?)?.to_owned();
        let amount = Num::operand(item(&payment, "amount")?, "int", "+")?;
        let Some(method) = methods.get(&method_id) else {
            return say(&format!("payment method {method_id} not found"));
        };
        let source = item(method, "source")?;
        if (source == "gift_card" || source == "certificate")
            && Num::operand(item(method, "amount")?, "int", "<")?.less(amount)
        {
            return say(&format!("not enough balance in payment method {method_id}"));
        }
        paid = paid.add(amount);
    }
    if paid.float() != total.float() {
        let (total, paid) = (total.text(), paid.text());
        return say(&format!("payment amount does not add up, total price is {total}, but paid {paid}"));
    }
    for payment in iterate(payments)? {
        let method_id = key(&payment["payment_id"])?;
        let user = data.get_mut("users", user_id)?;
        match methods[method_id]["source"].as_str() {
            Some("gift_card") => {
                let balance = &mut user["payment_methods"][method_id]["amount"];
                *balance =
                    Num::operand(balance, "int", "-=")?.sub(Num::operand(&payment["amount"], "int", "-=")?).value();
            }
            Some("certificate") => {
                user["payment_methods"].as_object_mut().and_then(|m| m.shift_remove(method_id));
            }
            _ => {}
        }
    }
    let reservation = json!({
        "reservation_id": id, "user_id": user_id, "origin": a.get("origin"), "destination": a.get("destination"),
        "flight_type": a.get("flight_type"), "cabin": cabin, "flights": flights, "passengers": passengers,
        "payment_history": payments, "created_at": "2024-05-15T15:00:00", "total_baggages": a.get("total_baggages"),
        "nonfree_baggages": a.get("nonfree_baggages"), "insurance": a.get("insurance"),
    });
    data.insert("reservations", id, reservation.clone());
    if let Some(list) = item_mut(data.get_mut("users", user_id)?, "reservations")?.as_array_mut() {
        list.push(id.into());
    }
    Ok(dumps(&reservation))
}

fn cancel_reservation(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("reservation_id")?;
    if !data.has("reservations", id) {
        return say("reservation not found");
    }
    let mut refunds = Vec::new();
    for payment in iterate(item(data.get("reservations", id)?, "payment_history")?)? {
        let amount = Num::Int(0).sub(Num::operand(item(&payment, "amount")?, "int", "-")?);
        refunds.push(json!({"payment_id": item(&payment, "payment_id")?, "amount": amount.value()}));
    }
    let reservation = data.get_mut("reservations", id)?;
    if let Some(history) = reservation["payment_history"].as_array_mut() {
        history.extend(refunds);
    }
    reservation["status"] = "cancelled".into();
    Ok(dumps(reservation))
}

/// A flight without its dates, then the day's own fields.
fn on_day(flight: &Value, date: &str) -> Result<Value> {
    let mut map: Map<String, Value> = flight.as_object().cloned().unwrap_or_default();
    map.shift_remove("dates");
    if let Value::Object(day) = item(item(flight, "dates")?, date)? {
        map.extend(day.clone());
    }
    Ok(Value::Object(map))
}

fn available(flight: &Value, date: &str) -> Result<bool> {
    match item(flight, "dates")?.get(date) {
        Some(day) => Ok(item(day, "status")? == "available"),
        None => Ok(false),
    }
}

fn search_direct_flight(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let mut found = Vec::new();
    for (_, flight) in data.rows("flights") {
        if equal(item(flight, "origin")?, a.get("origin")) && equal(item(flight, "destination")?, a.get("destination"))
        {
            let date = a.key("date")?;
            if available(flight, date)? {
                found.push(on_day(flight, date)?);
            }
        }
    }
    Ok(dumps(&Value::Array(found)))
}

fn search_onestop_flight(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let mut found = Vec::new();
    for (_, first) in data.rows("flights").filter(|(_, f)| equal(&f["origin"], a.get("origin"))) {
        for (_, second) in data.rows("flights") {
            if !equal(item(second, "destination")?, a.get("destination")) || first["destination"] != second["origin"] {
                continue;
            }
            let date = match a.get("date") {
                Value::String(s) => s.as_str(),
                other => {
                    return Err(Raised(format!("'{}' object is not subscriptable", crate::python::type_name(other))));
                }
            };
            let arrival = key(item(first, "scheduled_arrival_time_est")?)?;
            let next_day = if arrival.contains("+1") {
                let day: String = date.chars().skip(date.chars().count().saturating_sub(2)).collect();
                let number: i64 = day.trim().parse().map_err(|_| {
                    Raised(format!("invalid literal for int() with base 10: {}", crate::python::str_repr(&day)))
                })?;
                format!("2024-05-{}", number + 1)
            } else {
                date.to_owned()
            };
            if arrival > key(item(second, "scheduled_departure_time_est")?)? {
                continue;
            }
            let both = item(first, "dates")?.get(date).is_some() && item(second, "dates")?.get(&next_day).is_some();
            if both && available(first, date)? && available(second, &next_day)? {
                let mut one = on_day(first, date)?;
                one["date"] = date.into();
                // upstream: the second flight shows the first day's fields.
                let mut two = on_day(second, date)?;
                two["date"] = next_day.into();
                found.push(Value::Array(vec![one, two]));
            }
        }
    }
    Ok(dumps(&Value::Array(found)))
}

fn send_certificate(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let (user_id, amount) = (a.key("user_id")?, a.get("amount"));
    if !data.has("users", user_id) {
        return say("user not found");
    }
    let methods = item(data.get("users", user_id)?, "payment_methods")?;
    let free = [3_221_322, 3_221_323, 3_221_324]
        .iter()
        .map(|n| format!("certificate_{n}"))
        .find(|id| methods.get(id).is_none());
    // upstream: returns None when all three are taken.
    let Some(id) = free else { return Ok("None".into()) };
    let certificate = json!({"source": "certificate", "amount": amount, "id": id});
    data.get_mut("users", user_id)?["payment_methods"][&id] = certificate;
    Ok(format!("Certificate {id} added to user {user_id} with amount {}.", text(amount)))
}

/// Checks that a payment method can pay; the message upstream returns if not, else whether it is a gift card.
fn check_payment(
    data: &Database,
    reservation: &Value,
    id: &str,
    price: Num,
) -> Result<std::result::Result<bool, String>> {
    let user = data.get("users", key(item(reservation, "user_id")?)?)?;
    let Some(method) = item(user, "payment_methods")?.get(id) else {
        return Ok(Err("Error: payment method not found".into()));
    };
    let source = item(method, "source")?;
    if source == "certificate" {
        return Ok(Err("Error: certificate cannot be used to update reservation".into()));
    }
    let gift = source == "gift_card";
    if gift && Num::operand(item(method, "amount")?, "int", "<")?.less(price) {
        return Ok(Err("Error: gift card balance is not enough".into()));
    }
    Ok(Ok(gift))
}

fn pay(data: &mut Database, id: &str, payment: &str, price: Num, gift: bool) -> Result<()> {
    if gift {
        let user = key(&data.get("reservations", id)?["user_id"])?.to_owned();
        let balance = &mut data.get_mut("users", &user)?["payment_methods"][payment]["amount"];
        *balance = Num::operand(balance, "int", "-=")?.sub(price).value();
    }
    if price.float() != 0.0
        && let Some(history) = item_mut(data.get_mut("reservations", id)?, "payment_history")?.as_array_mut()
    {
        history.push(json!({"payment_id": payment, "amount": price.value()}));
    }
    Ok(())
}

fn update_reservation_baggages(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("reservation_id")?;
    let Some(reservation) = data.row("reservations", id).cloned() else { return say("reservation not found") };
    let more = Num::operand(a.get("nonfree_baggages"), "int", "-")?.sub(Num::operand(
        item(&reservation, "nonfree_baggages")?,
        "int",
        "-",
    )?);
    let price = Num::Int(50).mul(if more.float() > 0.0 { more } else { Num::Int(0) });
    let payment = a.key("payment_id")?;
    let gift = match check_payment(data, &reservation, payment, price)? {
        Ok(gift) => gift,
        Err(message) => return Ok(message),
    };
    let reservation = data.get_mut("reservations", id)?;
    reservation["total_baggages"] = a.get("total_baggages").clone();
    reservation["nonfree_baggages"] = a.get("nonfree_baggages").clone();
    pay(data, id, payment, price, gift)?;
    details(data, "reservations", id, "reservation")
}

fn update_reservation_flights(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("reservation_id")?;
    let Some(reservation) = data.row("reservations", id).cloned() else { return say("reservation not found") };
    let cabin = a.get("cabin");
    let seats = len(item(&reservation, "passengers")?)?;
    let mut flights = a.get("flights").clone();
    iterate(&flights)?;
    let mut total = Num::Int(0);
    let booked = iterate(item(&reservation, "flights")?)?;
    for flight in flights.as_array_mut().into_iter().flatten() {
        let mut kept = None;
        for old in &booked {
            if equal(item(old, "flight_number")?, item(flight, "flight_number")?)
                && equal(item(old, "date")?, item(flight, "date")?)
                && equal(cabin, item(&reservation, "cabin")?)
            {
                kept = Some(old);
                break;
            }
        }
        if let Some(old) = kept {
            total = total.add(times(item(old, "price")?, seats)?);
            for field in ["price", "origin", "destination"] {
                flight[field] = item(old, field)?.clone();
            }
            continue;
        }
        match price_flight(data, flight, cabin, seats)? {
            Ok(price) => total = total.add(price),
            Err(message) => return Ok(message),
        }
    }
    let mut before = Num::Int(0);
    for old in &booked {
        before = before.add(Num::operand(item(old, "price")?, "int", "+")?);
    }
    total = total.sub(before.mul(Num::Int(seats as i64)));
    let payment = a.key("payment_id")?;
    let gift = match check_payment(data, &reservation, payment, total)? {
        Ok(gift) => gift,
        Err(message) => return Ok(message),
    };
    data.get_mut("reservations", id)?["flights"] = flights;
    pay(data, id, payment, total, gift)?;
    details(data, "reservations", id, "reservation")
}

fn update_reservation_passengers(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let id = a.key("reservation_id")?;
    let Some(reservation) = data.row("reservations", id) else { return say("reservation not found") };
    if len(a.get("passengers"))? != len(item(reservation, "passengers")?)? {
        return say("number of passengers does not match");
    }
    let reservation = data.get_mut("reservations", id)?;
    reservation["passengers"] = a.get("passengers").clone();
    Ok(dumps(reservation))
}
