//! Beam search compared with a plain implementation that computes every hypothesis from scratch.

use std::ops::ControlFlow;

use crate::common::scenes::{ask, engine, fresh_engine, options};
use xc2_convert::mix::Preset;
use xc2_edge::engine::{Engine, EngineError, Observer, PromptState, Request, StopReason};

const BRIEF: &str = "Describe this image briefly.";

/// Log-probabilities of the next token after `ids`.
fn log_softmax_after(place: &mut PromptState, ids: &[i32]) -> Vec<f64> {
    let mut last = Vec::new();
    place
        .force_tokens(ids, |_, row| last = row.to_vec())
        .unwrap();
    let max = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = last.iter().map(|l| f64::from(l - max).exp()).sum();
    let shift = f64::from(max) + sum.ln();
    last.iter().map(|l| f64::from(*l) - shift).collect()
}

/// `generate(num_beams=B)` of transformers 4.33, step by step.
fn naive(engine: &Engine, request: &Request) -> Vec<i32> {
    let n_beams = request.beams;
    let prompt = &engine.container().info().prompt;
    let eos = [prompt.eos, prompt.turn_end];
    let alone = Request {
        beams: 1,
        ..request.clone()
    };
    let (answer, mut place) = engine.answer_and_keep_prompt(&alone, &mut ()).unwrap();
    let n_before = match answer.n_image {
        0 => answer.n_prompt,
        _ => 1, // from embeddings, transformers starts with `<s>` alone
    };
    let divide = |sum: f64, n: usize| sum / ((n_before + n) as f64);

    let mut beams: Vec<(Vec<i32>, f64)> = vec![(Vec::new(), 0.0)];
    let mut hypotheses: Vec<(f64, Vec<i32>)> = Vec::new();
    let add = |hypotheses: &mut Vec<(f64, Vec<i32>)>, ids: &[i32], sum: f64| {
        hypotheses.push((divide(sum, ids.len()), ids.to_vec()));
        if hypotheses.len() > n_beams {
            let worst =
                (0..hypotheses.len()).min_by(|a, b| hypotheses[*a].0.total_cmp(&hypotheses[*b].0));
            hypotheses.remove(worst.unwrap());
        }
    };
    let mut done = false;
    for n in 1..=request.n_predict {
        let mut scores: Vec<(f64, usize, i32)> = Vec::new();
        for (beam, (ids, sum)) in beams.iter().enumerate() {
            let next = log_softmax_after(&mut place, ids);
            scores.extend(next.iter().zip(0..).map(|(s, id)| (sum + s, beam, id)));
        }
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        scores.truncate(3 * n_beams);
        let mut next_beams = Vec::new();
        for (rank, (sum, beam, id)) in scores.iter().enumerate() {
            if eos.contains(id) {
                if rank < n_beams {
                    add(&mut hypotheses, &beams[*beam].0, *sum);
                }
            } else {
                let ids = [&beams[*beam].0[..], &[*id]].concat();
                next_beams.push((ids, *sum));
            }
            if next_beams.len() == n_beams {
                break;
            }
        }
        beams = next_beams;
        let worst = hypotheses.iter().map(|h| h.0).fold(f64::INFINITY, f64::min);
        done = hypotheses.len() == n_beams && worst >= divide(scores[0].0, n);
        if done {
            break;
        }
    }
    if !done {
        for (ids, sum) in &beams {
            add(&mut hypotheses, ids, *sum);
        }
    }
    let best = hypotheses.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.unwrap().1
}

#[track_caller]
fn assert_equals_naive(engine: &Engine, request: &Request) -> bool {
    let answer = engine.answer(request, &mut ()).unwrap();
    let expected = naive(engine, request);
    assert_eq!(answer.ids, expected, "{} beams", request.beams);
    assert_eq!(answer.text, engine.tokenizer().decode(&expected));
    let greedy = Request {
        beams: 1,
        ..request.clone()
    };
    engine.answer(&greedy, &mut ()).unwrap().ids != answer.ids
}

#[test]
fn beams_equal_the_plain_implementation() {
    let (none, one, two) = (&[][..], &[400][..], &[401, 402][..]);
    // Some stop by themselves, some at the limit.
    for (seeds, beams, n_predict) in [
        (one, 2, 40),
        (none, 2, 40),
        (two, 3, 12),
        (one, 5, 1),
        (two, 5, 1),
        (none, 5, 9),
        (one, 5, 9),
    ] {
        let query = match seeds.len() {
            0 => "What can you do?",
            1 => BRIEF,
            _ => "What differs?",
        };
        let request = Request {
            beams,
            n_predict,
            ..ask(seeds, query)
        };
        assert_equals_naive(engine(), &request);
    }
}

#[test]
fn with_random_weights_beams_differ_from_greedy() {
    let tiny = crate::common::model("tiny-composer", Preset::F32);
    let engine = Engine::load(&tiny, options()).unwrap();
    let mut n_other = 0;
    for query in ["What is this?", "Why?", "Tell me more about it."] {
        for (beams, n_predict) in [(3, 6), (5, 10)] {
            let mut request = ask(&[410], query);
            request.chat.system = String::new();
            request.beams = beams;
            request.n_predict = n_predict;
            n_other += usize::from(assert_equals_naive(&engine, &request));
            request.images.clear();
            n_other += usize::from(assert_equals_naive(&engine, &request));
        }
    }
    assert!(n_other > 0, "beams never mattered");
}

#[test]
fn enough_beams_find_the_best_possible_answer() {
    let request = Request {
        beams: 64,
        n_predict: 2,
        ..ask(&[420], "Tell me something.")
    };
    let alone = Request {
        beams: 1,
        n_predict: 1,
        ..request.clone()
    };
    let (_, mut place) = engine().answer_and_keep_prompt(&alone, &mut ()).unwrap();
    let prompt = &engine().container().info().prompt;
    let is_stop = |id: i32| id == prompt.eos || id == prompt.turn_end;
    let mut best = (f64::NEG_INFINITY, Vec::new());
    let mut try_answer = |score: f64, ids: Vec<i32>| {
        if score > best.0 {
            best = (score, ids);
        }
    };
    let first = log_softmax_after(&mut place, &[]);
    for (score, id) in first.iter().zip(0..) {
        if is_stop(id) {
            try_answer(*score, vec![]);
            continue;
        }
        for (next, other) in log_softmax_after(&mut place, &[id]).iter().zip(0..) {
            match is_stop(other) {
                true => try_answer((score + next) / 2.0, vec![id]),
                false => try_answer((score + next) / 3.0, vec![id, other]),
            }
        }
    }
    let answer = engine().answer(&request, &mut ()).unwrap();
    assert_eq!(answer.ids, best.1);
}

#[test]
fn a_session_continues_after_beam_search() {
    let mut session = engine().session();
    let request = ask(&[430], BRIEF);
    let beams = Request {
        beams: 4,
        ..request.clone()
    };
    let greedy = session.answer(&request, &mut ()).unwrap();
    let searched = session.answer(&beams, &mut ()).unwrap();
    assert!(
        searched.timings.n_reused > searched.n_image,
        "{:?}",
        searched.timings
    );
    assert_eq!(searched.stop, StopReason::Stop);
    let again = session.answer(&request, &mut ()).unwrap();
    assert_eq!((again.timings.n_prefill, &again.ids), (1, &greedy.ids));
}

/// Interrupts a search at its third step.
#[derive(Default)]
struct Impatient {
    n_steps: usize,
    text: String,
}

impl Observer for Impatient {
    fn progress(&mut self, stage: &'static str, _: usize, _: usize) {
        self.n_steps += usize::from(stage == "search");
    }

    fn is_interrupted(&mut self) -> bool {
        self.n_steps >= 3
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        self.text += text;
        ControlFlow::Continue(())
    }
}

#[test]
fn an_interrupted_search_returns_the_best_hypothesis() {
    let mut session = engine().session();
    let request = Request {
        beams: 3,
        ..ask(&[440], BRIEF)
    };
    let mut observer = Impatient::default();
    let answer = session.answer(&request, &mut observer).unwrap();
    assert_eq!(answer.stop, StopReason::Interrupted);
    assert_eq!((observer.n_steps, answer.ids.len()), (3, 3));
    assert_eq!(observer.text, answer.text);
    let whole = session.answer(&request, &mut ()).unwrap();
    assert_eq!(whole.ids, engine().answer(&request, &mut ()).unwrap().ids);
}

#[test]
fn beams_with_sampling_are_refused() {
    let engine = fresh_engine(options());
    let refused = |change: fn(&mut Request)| {
        let mut request = ask(&[], "Hello!");
        request.beams = 3;
        change(&mut request);
        match engine.answer(&request, &mut ()) {
            Err(EngineError::Beams { found }) => found,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|r| r.beams = 0), "0 beams");
    assert_eq!(refused(|r| r.beams = 65), "65 beams");
    assert_eq!(refused(|r| r.sampling.temperature = 0.5), "temperature 0.5");
    assert_eq!(
        refused(|r| r.sampling.repeat_penalty = 1.1),
        "repetition penalty 1.1"
    );
}
