//! Several requests in one context give the same answers as one at a time.

use std::{collections::VecDeque, ops::ControlFlow};

use crate::common::scenes::{ask, engine, fresh_engine, options};
use xc2_edge::{
    engine::{Answer, EngineError, EngineOptions, Offer, Picture, Request, Requests},
    language::prompt::PloraPolicy,
};

const BRIEF: &str = "Describe this image briefly.";

type Results = Vec<Option<Result<Answer, EngineError>>>;

fn answer_many(n_parallel: usize, requests: &[Request]) -> Results {
    let mut results: Results = requests.iter().map(|_| None).collect();
    let source = requests.iter().cloned();
    engine()
        .answer_many(n_parallel, source, |index, result| {
            assert!(results[index].replace(result).is_none(), "answered once");
            ControlFlow::Continue(())
        })
        .unwrap();
    results
}

fn one_at_a_time(requests: &[Request]) -> Vec<Answer> {
    let answers = requests.iter().map(|r| engine().answer(r, &mut ()));
    answers.collect::<Result<_, _>>().unwrap()
}

#[track_caller]
fn assert_same(n_parallel: usize, requests: &[Request], expected: &[Answer]) -> Vec<Answer> {
    let answers = answer_many(n_parallel, requests).into_iter();
    let answers: Vec<Answer> = answers.map(|a| a.unwrap().unwrap()).collect();
    for (i, (answer, alone)) in answers.iter().zip(expected).enumerate() {
        assert_eq!(
            answer.text, alone.text,
            "request {i} of {n_parallel} at a time"
        );
        assert_eq!((answer.stop, &answer.ids), (alone.stop, &alone.ids));
        assert_eq!(answer.timings.n_decode, alone.timings.n_decode);
    }
    answers
}

#[test]
fn captions_in_parallel_equal_captions_one_at_a_time() {
    let requests: Vec<Request> = (200..210).map(|seed| ask(&[seed], BRIEF)).collect();
    let expected = one_at_a_time(&requests);
    for n_parallel in [1, 3, 8] {
        let answers = assert_same(n_parallel, &requests, &expected);
        for answer in &answers[1..] {
            let n_reused = answer.timings.n_reused;
            assert!(n_reused > 0, "the system turn is shared");
            assert!(n_reused < answer.n_prompt - answer.n_image);
        }
    }
}

#[test]
fn different_questions_run_in_parallel() {
    let mut requests = Vec::new();
    for seed in 230..233 {
        requests.push(ask(&[seed], "Describe this image in detail."));
        requests.push(ask(&[seed], "How many objects are there?"));
        requests.push(ask(&[], "Hello! Who are you?"));
        requests.push(ask(&[seed, seed + 1], "What differs?"));
        let n_predict = (seed % 3) as usize; // no token, or cut after one or two
        requests.push(Request {
            n_predict,
            ..ask(&[seed], BRIEF)
        });
        requests.push(Request {
            plora: PloraPolicy::Everywhere,
            n_predict: 20,
            ..ask(&[seed], BRIEF)
        });
    }
    let answers = assert_same(4, &requests, &one_at_a_time(&requests));
    // The second question about a picture reuses its rows from any slot.
    let timings = answers[1].timings;
    assert!(timings.n_reused > answers[1].n_image, "{timings:?}");
}

#[test]
fn a_request_that_fails_does_not_stop_the_others() {
    let mut requests: Vec<Request> = (240..246).map(|seed| ask(&[seed], BRIEF)).collect();
    requests[0].images = vec![Picture::File("no/such/picture.png".into())];
    requests[3].chat.query = "very ".repeat(4000);
    requests[4].chat.query = "<ImageHere><ImageHere>two?".to_owned();
    let results = answer_many(2, &requests);
    for (i, (result, request)) in results.into_iter().zip(&requests).enumerate() {
        match (i, result.unwrap()) {
            (0, Err(EngineError::Image(_)))
            | (3, Err(EngineError::PromptTooLong { .. }))
            | (4, Err(EngineError::Prompt(_))) => {}
            (_, result) => {
                let alone = engine().answer(request, &mut ()).unwrap();
                assert_eq!(result.unwrap().text, alone.text, "request {i}");
            }
        }
    }
}

#[test]
fn large_requests_wait_for_free_context_and_are_answered() {
    let mut requests: Vec<Request> = (250..256).map(|seed| ask(&[seed], BRIEF)).collect();
    requests[2] = ask(&[250, 251, 252, 253], "What differs?");
    requests[2].n_predict = 900;
    assert_same(2, &requests, &one_at_a_time(&requests));
}

#[test]
fn break_stops_the_scheduler() {
    let mut n_answers = 0;
    let requests = (260..).map(|seed| ask(&[seed], BRIEF)); // endless
    engine()
        .answer_many(3, requests, |_, _| {
            n_answers += 1;
            if n_answers == 4 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(n_answers, 4);
}

/// Gives the next request only after all earlier answers, like a client that waits for replies.
struct Hesitant(VecDeque<Request>);

impl Requests for Hesitant {
    fn next_request(&mut self, idle: bool) -> Offer {
        match idle {
            false => Offer::NotYet,
            true => self
                .0
                .pop_front()
                .map_or(Offer::End, |r| Offer::Request(Box::new(r))),
        }
    }
}

#[test]
fn a_source_that_waits_for_answers_gets_them() {
    let requests = (270..273).map(|seed| ask(&[seed], BRIEF)).collect();
    let mut order = Vec::new();
    engine()
        .answer_many(4, Hesitant(requests), |index, result| {
            order.push((index, result.is_ok()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(order, [(0, true), (1, true), (2, true)]);
}

#[test]
fn a_fixed_context_applies_to_each_request() {
    let engine = fresh_engine(EngineOptions {
        n_ctx: Some(300),
        ..options()
    });
    let requests = [&[280][..], &[281], &[280, 281], &[282]].map(|seeds| ask(seeds, BRIEF));
    let mut results = [None, None, None, None];
    let on_answer = |index: usize, result: Result<Answer, EngineError>| {
        results[index] = Some(result.map(|answer| answer.text));
        ControlFlow::Continue(())
    };
    engine
        .answer_many(3, requests.clone().into_iter(), on_answer)
        .unwrap();
    for (result, request) in results.into_iter().zip(&requests) {
        match result.unwrap() {
            Ok(text) => assert_eq!(text, engine.answer(request, &mut ()).unwrap().text),
            Err(error) => assert!(matches!(
                error,
                EngineError::PromptTooLong { n_ctx: 300, .. }
            )),
        }
    }
}

#[test]
fn parallelism_follows_memory_and_cores() {
    let need = |n: usize| engine().memory_need_for(n * 2048, true).total();
    assert_eq!(engine().choose_parallel(2048, Some(need(1) / 2)), 1);
    assert_eq!(engine().choose_parallel(2048, Some(need(3) * 10 / 9)), 3);
    assert_eq!(engine().choose_parallel(2048, None), 4); // one thread
}
