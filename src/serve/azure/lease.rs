//! Leases on blobs.

use super::http::{Request, Response};
use super::refusal::{Answered, refuse};
use super::text::{now, uuid};
use super::volume::{Held, Live, shown_time};

/// Carries out `comp=lease`.
#[allow(clippy::too_many_lines, reason = "a table of actions")]
pub(super) fn lease(request: &Request, live: &mut Live) -> Answered {
    let action = request
        .said("x-ms-lease-action")
        .unwrap_or("")
        .to_ascii_lowercase();
    let said = request.said("x-ms-lease-id");
    let held = live.record.lease.clone();
    let active = held.clone().filter(Held::is_active);
    let mismatch = || {
        refuse(
            409,
            "LeaseIdMismatchWithLeaseOperation",
            "The lease ID specified did not match the lease ID for the blob.",
        )
    };
    // An expired lease can still be renewed or released by its holder.
    let own = match (&held, said) {
        (Some(held), Some(said)) if held.id.eq_ignore_ascii_case(said) => Ok(held.clone()),
        (None, Some(_)) => refuse(
            409,
            "LeaseNotPresentWithLeaseOperation",
            "There is currently no lease on the blob.",
        ),
        (Some(_), Some(_)) => mismatch(),
        (_, None) => refuse(400, "MissingRequiredHeader", "x-ms-lease-id is missing."),
    };
    let (status, lease, answer) = match action.as_str() {
        "acquire" => {
            let duration = match request.said("x-ms-lease-duration").map(str::parse::<i64>) {
                Some(Ok(-1)) => None,
                Some(Ok(seconds @ 15..=60)) => Some(seconds),
                _ => {
                    return refuse(
                        400,
                        "InvalidHeaderValue",
                        "x-ms-lease-duration is -1 or 15 to 60.",
                    );
                }
            };
            let id = id_of(request.said("x-ms-proposed-lease-id"))?;
            if active.is_some_and(|held| held.broken || !held.id.eq_ignore_ascii_case(&id)) {
                return refuse(
                    409,
                    "LeaseAlreadyPresent",
                    "There is already a lease present.",
                );
            }
            let until = duration.map(|seconds| now() + seconds);
            let held = Held {
                id: id.clone(),
                duration,
                until,
                broken: false,
            };
            (201, Some(held), ("x-ms-lease-id", id))
        }
        "renew" => {
            let held = own?;
            if held.broken {
                return refuse(
                    409,
                    "LeaseIsBrokenAndCannotBeRenewed",
                    "The lease has been broken explicitly and cannot be renewed.",
                );
            }
            let until = held.duration.map(|seconds| now() + seconds);
            let id = held.id.clone();
            (200, Some(Held { until, ..held }), ("x-ms-lease-id", id))
        }
        "change" => {
            if request.said("x-ms-proposed-lease-id").is_none() {
                return refuse(
                    400,
                    "MissingRequiredHeader",
                    "x-ms-proposed-lease-id is missing.",
                );
            }
            let id = id_of(request.said("x-ms-proposed-lease-id"))?;
            let Some(held) = active else {
                return refuse(
                    409,
                    "LeaseNotPresentWithLeaseOperation",
                    "There is currently no lease on the blob.",
                );
            };
            // A change may be requested again after it was carried out.
            if !held.id.eq_ignore_ascii_case(&id) {
                own?;
            }
            (
                200,
                Some(Held {
                    id: id.clone(),
                    ..held
                }),
                ("x-ms-lease-id", id),
            )
        }
        "release" => {
            own?;
            (200, None, ("x-ms-lease-id", said.unwrap_or("").to_owned()))
        }
        "break" => {
            let Some(held) = active else {
                return refuse(
                    409,
                    "LeaseNotPresentWithLeaseOperation",
                    "There is currently no lease on the blob.",
                );
            };
            let left = held.until.map_or(0, |until| (until - now()).max(0));
            let period = match request
                .said("x-ms-lease-break-period")
                .map(str::parse::<i64>)
            {
                None => left,
                Some(Ok(period @ 0..=60)) if held.until.is_some() => period.min(left),
                Some(Ok(period @ 0..=60)) => period,
                _ => {
                    return refuse(
                        400,
                        "InvalidHeaderValue",
                        "x-ms-lease-break-period is 0 to 60.",
                    );
                }
            };
            let until = Some(now() + period);
            (
                202,
                Some(Held {
                    until,
                    broken: true,
                    ..held
                }),
                ("x-ms-lease-time", period.to_string()),
            )
        }
        _ => {
            return refuse(
                400,
                "InvalidHeaderValue",
                "x-ms-lease-action is acquire, renew, change, release or break.",
            );
        }
    };
    live.record.lease = lease;
    live.save()?;
    Ok(Response::new(status)
        .with(answer.0, answer.1)
        .with("etag", live.etag())
        .with("last-modified", shown_time(live.modified())))
}

/// A proposed id, or a new one.
fn id_of(proposed: Option<&str>) -> Answered<String> {
    match proposed {
        None => Ok(uuid()),
        Some(id) if uuid::Uuid::try_parse(id).is_ok() => Ok(id.to_ascii_lowercase()),
        Some(_) => refuse(
            400,
            "InvalidHeaderValue",
            "x-ms-proposed-lease-id is not a GUID.",
        ),
    }
}
