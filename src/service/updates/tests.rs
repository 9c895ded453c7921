use std::task::Waker;

use super::*;

/// All that the page has not read yet.
fn unread(page: &PageSubscription) -> Vec<String> {
    let polling = Context::from_waker(Waker::noop());
    let mut read = Vec::new();
    while let Poll::Ready(update) = page.poll_next(&polling) {
        let Some(update) = update else {
            read.push("end".to_owned());
            break;
        };
        read.push(match update {
            Update::Changed(changes) => changes.prompts.iter().map(PromptName::as_str).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}").to_lowercase(),
        });
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_page_reads_everything_first_and_then_changes_in_order() {
    let updates = Updates::default();
    updates.hears(Hearing::Yes);
    let page = updates.subscribe(1, None).expect("a page");
    assert_eq!(unread(&page), ["resync"]);
    for name in ["p", "q", "p"] {
        updates.change(&[name]).await;
    }
    assert_eq!(unread(&page), ["p", "q", "p"]);
    assert_eq!(unread(&page), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_read_keeps_little_and_reads_everything_again() {
    let updates = Updates::default();
    updates.hears(Hearing::Yes);
    let (slow, fast) = (updates.subscribe(2, None).expect("a page"), updates.subscribe(2, None).expect("a page"));
    assert_eq!((unread(&slow).len(), unread(&fast).len()), (1, 1));
    for n in 0..10_000 {
        updates.change(&[&format!("p-{n}")]).await;
        let inbox = locked(&slow.inbox);
        assert!(inbox.changes.len() <= MOST_UNREAD && inbox.changes.capacity() <= 2 * MOST_UNREAD, "{n}");
        drop(inbox);
        assert_eq!(unread(&fast), [format!("p-{n}")]);
    }
    assert_eq!(unread(&slow), ["resync"]);
    updates.change(&["p"]).await;
    assert_eq!(unread(&slow), ["p"], "afterwards it hears of changes again");
}

#[tokio::test(start_paused = true)]
async fn a_page_knows_while_redis_is_away() {
    let updates = Updates::default();
    let page = updates.subscribe(2, None).expect("a page");
    assert_eq!(unread(&page), [""; 0], "the connection is being opened");
    updates.hears(Hearing::Lost);
    updates.tell(&Update::Stale).await;
    let later = updates.subscribe(2, None).expect("a page");
    assert_eq!((unread(&page), unread(&later)), (vec!["stale".to_owned()], vec!["stale".to_owned()]));
    updates.tell(&Update::Stale).await;
    updates.tell(&Update::Resync).await;
    assert_eq!(unread(&page), ["stale", "resync"], "in this order, so that a page does not stay stale");
    updates.tell(&Update::Resync).await;
    updates.tell(&Update::Stale).await;
    assert_eq!(unread(&page), ["stale"], "and in no other");
}

#[tokio::test(start_paused = true)]
async fn pages_are_told_whose_health_changed_or_to_read_everything() {
    let updates = Updates::default();
    let page = updates.subscribe(1, None).expect("a page");
    let some = |number: usize| -> BTreeSet<PromptName> {
        (0..number).map(|n| PromptName::parse(&format!("p-{n}")).expect("a name")).collect()
    };
    for (changed, told) in [
        (Some(some(0)), vec![]),
        (Some(some(2)), vec!["p-0 p-1"]),
        (Some(some(MOST_NAMED + 1)), vec!["resync"]),
        (None, vec!["resync"]),
    ] {
        updates.health_changed(changed).await;
        assert_eq!(unread(&page), told);
    }
}

#[test]
fn nobody_opens_more_than_half_of_the_pages() {
    let updates = Updates::default();
    let open = |owner: &str| updates.subscribe(5, Some(owner.to_owned()));
    let mut pages: Vec<_> = (0..3).map(|_| open("wall").expect("a page")).collect();
    assert_eq!(open("wall").err(), Some(3));
    pages.push(open("ops").expect("room for others"));
    pages.push(open("ops").expect("room for others"));
    assert_eq!(open("ops").err(), Some(5));
    pages.truncate(2);
    assert!(open("wall").is_ok(), "a page that was closed makes room");
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_pages_are_told_in_steps_and_soon() {
    let updates = Updates::default();
    let pages: Vec<_> = (0..500).map(|_| updates.subscribe(500, None).expect("a page")).collect();
    assert_eq!(updates.subscribe(500, None).err(), Some(500), "there is a limit");
    let began = Instant::now();
    let telling = updates.change(&["p"]);
    tokio::pin!(telling);
    assert!(futures_util::poll!(&mut telling).is_pending());
    let told = |pages: &[PageSubscription]| pages.iter().filter(|page| unread(page) == ["p"]).count();
    assert_eq!(told(&pages), 25);
    telling.await;
    assert_eq!(told(&pages), 475);
    assert!(began.elapsed() <= Duration::from_millis(40), "{:?}", began.elapsed());
    drop(pages);
    assert_eq!(updates.open(), 0);
}

#[tokio::test]
async fn a_shutdown_ends_all_pages_at_once() {
    let updates = Updates::default();
    let page = updates.subscribe(2, None).expect("a page");
    let ended = tokio::spawn(std::future::poll_fn(move |polling| page.poll_next(polling)));
    tokio::task::yield_now().await;
    updates.close();
    assert!(ended.await.expect("no panic").is_none());
    assert_eq!(unread(&updates.subscribe(2, None).expect("a page")), ["end"], "and one that is opened later");
}
