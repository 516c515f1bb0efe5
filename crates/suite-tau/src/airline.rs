//! The fourteen tools of the airline: sierra-research/tau-bench@59a200c:`tau_bench/envs/airline/tools`.
//!
//! Bodies follow upstream step by step: an exception halfway leaves the database as changed so far, as it does there.

use crate::calculate::calculate;
use crate::database::Database;
use crate::python::{
    Arguments, Num, Raised, Result, contains, equal, extend, item, item_mut, iterate, key, len, less, lookup, multiply,
    str_repr, subtract, text, type_name,
};
use crate::retail::{Body, Checked, details, pass, say};
use rolegraft_spans::python_json::dumps;
use serde_json::{Map, Value, json};

/// Name, upstream's class, parameters, body.
pub(crate) const TOOLS: [(&str, &str, &[&str], Body); 14] = [
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
        details(d, "reservations", a.get("reservation_id"), "user")
    }),
    ("get_user_details", "GetUserDetails", &["user_id"], |d, a| details(d, "users", a.get("user_id"), "user")),
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

/// Prices a new flight and fills in its price, origin and destination.
fn price_flight(data: &Database, flight: &mut Value, cabin: &Value, passengers: &Value) -> Result<Checked<Num>> {
    let number = item(flight, "flight_number")?;
    let Some(known) = data.find("flights", number)? else {
        return Ok(Err(format!("Error: flight {} not found", text(number))));
    };
    let (dates, date) = (item(known, "dates")?, item(flight, "date")?);
    if !contains(dates, date)? {
        return Ok(Err(format!("Error: flight {} not found on date {}", text(number), text(date))));
    }
    let day = lookup(dates, date)?;
    if item(day, "status")? != "available" {
        return Ok(Err(format!("Error: flight {} not available on date {}", text(number), text(date))));
    }
    let seats = len(passengers);
    if less(lookup(item(day, "available_seats")?, cabin)?, &seats.clone()?.into())? {
        return Ok(Err(format!("Error: not enough seats on flight {}", text(number))));
    }
    let price = lookup(item(day, "prices")?, cabin)?.clone();
    let total = multiply(&price, seats?)?;
    let (origin, destination) = (item(known, "origin")?.clone(), item(known, "destination")?.clone());
    flight["price"] = price;
    flight["origin"] = origin;
    flight["destination"] = destination;
    Ok(Ok(total))
}

/// What upstream's `for flight in flights` walks, to be priced in place. Only a list has items that can be priced.
fn flights_of(flights: &mut Value) -> Result<&mut [Value]> {
    if let Some(first) = iterate(flights)?.first().filter(|_| !flights.is_array()) {
        item(first, "flight_number")?;
    }
    Ok(flights.as_array_mut().map_or(&mut [], Vec::as_mut_slice))
}

fn book_reservation(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let by = a.get("user_id");
    let (Some(_), Some(user_id)) = (data.find("users", by)?, key(by)?) else { return say("user not found") };
    let id = ["HATHAT", "HATHAU"].into_iter().find(|id| data.row("reservations", id).is_none()).unwrap_or("HATHAV");
    let (cabin, passengers, payments) = (a.get("cabin"), a.get("passengers"), a.get("payment_methods"));
    let mut flights = a.get("flights").clone();
    let mut total = Num::Int(0);
    for flight in flights_of(&mut flights)? {
        total = total.add(pass!(price_flight(data, flight, cabin, passengers)?));
    }
    if a.get("insurance") == "yes" {
        total = total.add(Num::Int(30).times(len(passengers)?));
    }
    total = total.add(fee(a.get("nonfree_baggages"), total)?);
    let methods = item(data.get("users", by)?, "payment_methods")?;
    let paying = iterate(payments)?;
    for payment in &paying {
        let (method, amount) = (item(payment, "payment_id")?, item(payment, "amount")?);
        if !contains(methods, method)? {
            return say(&format!("payment method {} not found", text(method)));
        }
        let known = lookup(methods, method)?;
        let source = item(known, "source")?;
        if (source == "gift_card" || source == "certificate") && less(item(known, "amount")?, amount)? {
            return say(&format!("not enough balance in payment method {}", text(method)));
        }
    }
    let paid = sum(&paying, "amount")?;
    if paid.float() != total.float() {
        let (total, paid) = (total.text(), paid.text());
        return say(&format!("payment amount does not add up, total price is {total}, but paid {paid}"));
    }
    for payment in &paying {
        let method = item(payment, "payment_id")?;
        let methods = item_mut(data.get_mut("users", user_id)?, "payment_methods")?;
        let source = item(lookup(methods, method)?, "source")?.clone();
        let method = key(method)?.unwrap_or_default();
        if source == "gift_card" {
            take(item_mut(methods, method)?, item(payment, "amount")?)?;
        } else if source == "certificate"
            && let Some(methods) = methods.as_object_mut()
        {
            methods.shift_remove(method);
        }
    }
    let reservation = json!({
        "reservation_id": id, "user_id": user_id, "origin": a.get("origin"), "destination": a.get("destination"),
        "flight_type": a.get("flight_type"), "cabin": cabin, "flights": flights, "passengers": passengers,
        "payment_history": payments, "created_at": "2024-05-15T15:00:00", "total_baggages": a.get("total_baggages"),
        "nonfree_baggages": a.get("nonfree_baggages"), "insurance": a.get("insurance"),
    });
    let answer = dumps(&reservation);
    data.insert("reservations", id, reservation);
    extend(item_mut(data.get_mut("users", user_id)?, "reservations")?, "append", [id.into()])?;
    Ok(answer)
}

/// `50 * bags`, to be added to `total`: Python repeats a text or a list fifty times, and fails at the sum.
fn fee(bags: &Value, total: Num) -> Result<Num> {
    match bags {
        Value::String(_) | Value::Array(_) => total.and("+=", bags),
        _ => multiply(bags, 50)
            .map_err(|_| Raised(format!("unsupported operand type(s) for *: 'int' and '{}'", type_name(bags)))),
    }
}

/// `sum(x[field] for x in items)`.
fn sum(items: &[Value], field: &str) -> Result<Num> {
    items.iter().try_fold(Num::Int(0), |sum, x| sum.and("+", item(x, field)?))
}

/// `method["amount"] -= amount`.
fn take(method: &mut Value, amount: &Value) -> Result<()> {
    let balance = item_mut(method, "amount")?;
    let left = Num::of(balance).ok_or_else(|| {
        Raised(format!("unsupported operand type(s) for -=: '{}' and '{}'", type_name(balance), type_name(amount)))
    })?;
    *balance = left.and("-=", amount)?.value();
    Ok(())
}

fn cancel_reservation(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let by = a.get("reservation_id");
    let (Some(reservation), Some(id)) = (data.find("reservations", by)?, key(by)?) else {
        return say("reservation not found");
    };
    let mut refunds = Vec::new();
    for payment in iterate(item(reservation, "payment_history")?)? {
        let (method, amount) = (item(&payment, "payment_id")?, item(&payment, "amount")?);
        let amount =
            Num::of(amount).ok_or_else(|| Raised(format!("bad operand type for unary -: '{}'", type_name(amount))))?;
        refunds.push(json!({"payment_id": method, "amount": amount.negative().value()}));
    }
    let reservation = data.get_mut("reservations", id)?;
    extend(item_mut(reservation, "payment_history")?, "extend", refunds)?;
    reservation["status"] = "cancelled".into();
    Ok(dumps(reservation))
}

/// A flight without its dates, then the day's own fields.
fn on_day(flight: &Value, date: &Value) -> Result<Value> {
    let mut map: Map<String, Value> = flight.as_object().cloned().unwrap_or_default();
    map.shift_remove("dates");
    if let Value::Object(day) = lookup(item(flight, "dates")?, date)? {
        map.extend(day.clone());
    }
    Ok(Value::Object(map))
}

fn available(flight: &Value, date: &Value) -> Result<bool> {
    Ok(item(lookup(item(flight, "dates")?, date)?, "status")? == "available")
}

fn search_direct_flight(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let (origin, destination, date) = (a.get("origin"), a.get("destination"), a.get("date"));
    let mut found = Vec::new();
    for (_, flight) in data.rows("flights") {
        if equal(item(flight, "origin")?, origin)
            && equal(item(flight, "destination")?, destination)
            && contains(item(flight, "dates")?, date)?
            && available(flight, date)?
        {
            found.push(on_day(flight, date)?);
        }
    }
    Ok(dumps(&Value::Array(found)))
}

/// `f"2024-05-{int(date[-2:])+1}"`.
fn next_day(date: &Value) -> Result<Value> {
    let Value::String(text) = date else {
        return Err(Raised(match date {
            Value::Array(_) => {
                "int() argument must be a string, a bytes-like object or a real number, not 'list'".into()
            }
            Value::Object(_) => "unhashable type: 'slice'".into(),
            other => format!("'{}' object is not subscriptable", type_name(other)),
        }));
    };
    let day: String = text.chars().skip(text.chars().count().saturating_sub(2)).collect();
    let wrong = || Raised(format!("invalid literal for int() with base 10: {}", str_repr(&day)));
    let number: i64 = day.trim().parse().map_err(|_| wrong())?;
    Ok(format!("2024-05-{}", number + 1).into())
}

fn search_onestop_flight(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let (origin, destination, date) = (a.get("origin"), a.get("destination"), a.get("date"));
    let mut seconds = Vec::new();
    for (_, flight) in data.rows("flights") {
        if equal(item(flight, "destination")?, destination) {
            seconds.push(flight);
        }
    }
    let mut found = Vec::new();
    for (_, first) in data.rows("flights") {
        if !equal(item(first, "origin")?, origin) {
            continue;
        }
        for &second in &seconds {
            if item(first, "destination")? != item(second, "origin")? {
                continue;
            }
            let arrival = item(first, "scheduled_arrival_time_est")?;
            let late = arrival.as_str().is_some_and(|a| a.contains("+1"));
            let second_date = if late { next_day(date)? } else { date.clone() };
            if less(item(second, "scheduled_departure_time_est")?, arrival)? {
                continue;
            }
            if contains(item(first, "dates")?, date)?
                && contains(item(second, "dates")?, &second_date)?
                && available(first, date)?
                && available(second, &second_date)?
            {
                let mut one = on_day(first, date)?;
                one["date"] = date.clone();
                // upstream: the second flight shows the first day's fields.
                let mut two = on_day(second, date)?;
                two["date"] = second_date;
                found.push(Value::Array(vec![one, two]));
            }
        }
    }
    Ok(dumps(&Value::Array(found)))
}

fn send_certificate(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let (by, amount) = (a.get("user_id"), a.get("amount"));
    let (Some(user), Some(user_id)) = (data.find("users", by)?, key(by)?) else { return say("user not found") };
    let methods = item(user, "payment_methods")?;
    let ids = [3_221_322, 3_221_323, 3_221_324].map(|n| format!("certificate_{n}"));
    let Some(id) = ids.into_iter().find(|id| methods.get(id).is_none()) else {
        // upstream: returns nothing at all when all three are taken, which ends its episode with an exception.
        return Ok("None".into());
    };
    let certificate = json!({"source": "certificate", "amount": amount, "id": id});
    item_mut(data.get_mut("users", user_id)?, "payment_methods")?[&id] = certificate;
    Ok(format!("Certificate {id} added to user {user_id} with amount {}.", text(amount)))
}

/// A payment method that may pay for a change of a reservation.
struct Method<'a> {
    id: &'a str,
    user: String,
    gift: bool,
}

fn method_that_pays<'a>(
    data: &Database,
    reservation: &Value,
    a: &Arguments<'a>,
    price: &Value,
) -> Result<Checked<Method<'a>>> {
    let user = item(reservation, "user_id")?;
    let methods = item(data.get("users", user)?, "payment_methods")?;
    let by = a.get("payment_id");
    if !contains(methods, by)? {
        return Ok(Err("Error: payment method not found".into()));
    }
    let method = lookup(methods, by)?;
    let source = item(method, "source")?;
    if source == "certificate" {
        return Ok(Err("Error: certificate cannot be used to update reservation".into()));
    }
    let gift = source == "gift_card";
    if gift && less(item(method, "amount")?, price)? {
        return Ok(Err("Error: gift card balance is not enough".into()));
    }
    Ok(Ok(Method { id: key(by)?.unwrap_or_default(), user: text(user), gift }))
}

impl Method<'_> {
    fn pay(&self, data: &mut Database, price: &Value) -> Result<()> {
        if self.gift {
            take(item_mut(item_mut(data.get_mut("users", &self.user)?, "payment_methods")?, self.id)?, price)?;
        }
        Ok(())
    }
    /// Appends the payment to the reservation's history unless it is nothing, and shows the reservation.
    fn record(&self, reservation: &mut Value, price: Num) -> Result<String> {
        if price.float() != 0.0 {
            let payment = json!({"payment_id": self.id, "amount": price.value()});
            extend(item_mut(reservation, "payment_history")?, "append", [payment])?;
        }
        Ok(dumps(reservation))
    }
}

fn update_reservation_baggages(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let by = a.get("reservation_id");
    let (Some(reservation), Some(id)) = (data.find("reservations", by)?, key(by)?) else {
        return say("reservation not found");
    };
    let (total, nonfree) = (a.get("total_baggages"), a.get("nonfree_baggages"));
    let more = subtract(nonfree, item(reservation, "nonfree_baggages")?)?;
    let price = if more.float() > 0.0 { more.times(50) } else { Num::Int(0) };
    let method = pass!(method_that_pays(data, reservation, a, &price.value())?);
    let reservation = data.get_mut("reservations", id)?;
    reservation["total_baggages"] = total.clone();
    reservation["nonfree_baggages"] = nonfree.clone();
    method.pay(data, &price.value())?;
    method.record(data.get_mut("reservations", id)?, price)
}

fn update_reservation_flights(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let by = a.get("reservation_id");
    let (Some(reservation), Some(id)) = (data.find("reservations", by)?, key(by)?) else {
        return say("reservation not found");
    };
    let cabin = a.get("cabin");
    let passengers = item(reservation, "passengers")?;
    let booked = iterate(item(reservation, "flights")?)?;
    let mut flights = a.get("flights").clone();
    let mut total = Num::Int(0);
    for flight in flights_of(&mut flights)? {
        let mut kept = None;
        for old in &booked {
            let same = equal(item(old, "flight_number")?, item(flight, "flight_number")?)
                && equal(item(old, "date")?, item(flight, "date")?)
                && equal(cabin, item(reservation, "cabin")?);
            // Upstream looks at every flight before it takes the first.
            kept = kept.or(same.then_some(old));
        }
        let Some(old) = kept else {
            total = total.add(pass!(price_flight(data, flight, cabin, passengers)?));
            continue;
        };
        total = total.add(multiply(item(old, "price")?, len(passengers)?)?);
        for field in ["price", "origin", "destination"] {
            flight[field] = item(old, field)?.clone();
        }
    }
    let before = sum(&booked, "price")?.times(len(passengers)?);
    let total = total.sub(before);
    let method = pass!(method_that_pays(data, reservation, a, &total.value())?);
    method.pay(data, &total.value())?;
    let reservation = data.get_mut("reservations", id)?;
    reservation["flights"] = flights;
    method.record(reservation, total)
}

fn update_reservation_passengers(data: &mut Database, a: &Arguments<'_>) -> Result<String> {
    let by = a.get("reservation_id");
    let (Some(reservation), Some(id)) = (data.find("reservations", by)?, key(by)?) else {
        return say("reservation not found");
    };
    let passengers = a.get("passengers");
    if len(passengers)? != len(item(reservation, "passengers")?)? {
        return say("number of passengers does not match");
    }
    let reservation = data.get_mut("reservations", id)?;
    reservation["passengers"] = passengers.clone();
    Ok(dumps(reservation))
}
