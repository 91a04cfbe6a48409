//! Sessions reuse what is computed and give the same answers as a computation from scratch.

use crate::common::scenes::{ask, engine, fresh_engine, options, picture};
use xc2_edge::{
    engine::{Answer, EngineError, EngineOptions, Picture, Request, Session},
    evaluation::scenes::Task,
    language::{llama::KvType, prompt::PloraPolicy},
};

/// The next turn after `answer` to `request`.
fn next_turn(mut request: Request, answer: &Answer, query: &str) -> Request {
    let marker = &engine().container().info().prompt.image_marker;
    let mut asked = std::mem::replace(&mut request.chat.query, query.to_owned());
    if request.chat.history.is_empty() && !asked.contains(marker.as_str()) {
        asked = marker.repeat(request.images.len()) + &asked;
    }
    request.chat.history.push((asked, answer.text.clone()));
    request
}

#[track_caller]
fn assert_same(session: &mut Session<'_>, request: &Request) -> Answer {
    let answer = session.answer(request, &mut ()).unwrap();
    let fresh = engine().answer(request, &mut ()).unwrap();
    assert_eq!(answer.text, fresh.text);
    assert_eq!(answer.ids, fresh.ids);
    assert_eq!((answer.stop, answer.n_prompt), (fresh.stop, fresh.n_prompt));
    let timings = answer.timings;
    assert_eq!(timings.n_reused + timings.n_prefill, answer.n_prompt);
    answer
}

#[test]
fn a_second_question_computes_only_the_difference() {
    let mut session = engine().session();
    for seed in 0..3 {
        let first = assert_same(&mut session, &ask(&[seed], "Describe this image briefly."));
        let second = assert_same(
            &mut session,
            &ask(&[seed], "List the objects in the image."),
        );
        assert!(first.timings.n_reused < first.n_prompt - first.n_image);
        assert!(second.timings.n_reused > second.n_image);
        assert!(second.timings.n_prefill < 40, "{:?}", second.timings);
        assert_eq!(second.timings.n_images_reused, 1);
        let again = assert_same(
            &mut session,
            &ask(&[seed], "List the objects in the image."),
        );
        assert_eq!(again.timings.n_prefill, 1); // for its logits
    }
}

#[test]
fn a_next_turn_computes_only_the_new_part() {
    let mut session = engine().session();
    for seed in 20..22 {
        let mut request = ask(&[seed], "Describe this image briefly.");
        for query in [
            "How many objects are there?",
            "What is the background color?",
        ] {
            let answer = assert_same(&mut session, &request);
            let n_past = session.n_past();
            request = next_turn(request, &answer, query);
            let answer = assert_same(&mut session, &request);
            assert!(
                answer.timings.n_reused + 2 >= n_past,
                "{:?}",
                answer.timings
            );
            assert_eq!(answer.timings.n_images, 0);
        }
    }
}

#[test]
fn later_turns_may_have_pictures() {
    let mut session = engine().session();
    let first = ask(&[30], "<ImageHere>Describe this image briefly.");
    let answer = assert_same(&mut session, &first);
    let n_past = session.n_past();
    let mut second = next_turn(first, &answer, "<ImageHere>Describe this image briefly.");
    second.images.push(picture(31));
    let answer = assert_same(&mut session, &second);
    assert!(
        answer.timings.n_reused + 2 >= n_past,
        "{:?}",
        answer.timings
    );
}

#[test]
fn another_picture_or_mask_is_computed_again() {
    let mut session = engine().session();
    let query = "Describe this image briefly.";
    let a = assert_same(&mut session, &ask(&[40], query));
    let b = assert_same(&mut session, &ask(&[41], query));
    assert!(b.timings.n_prefill > b.n_image);
    assert_ne!(a.text, b.text);
    let blind = Request {
        plora: PloraPolicy::Nowhere,
        ..ask(&[41], query)
    };
    let blind = assert_same(&mut session, &blind);
    assert!(blind.timings.n_prefill > blind.n_image);
    let pair = assert_same(&mut session, &ask(&[41, 40], "What differs?"));
    assert!(pair.timings.n_prefill > pair.n_image);
    let swapped = assert_same(&mut session, &ask(&[41, 41], "What differs?"));
    assert!(swapped.timings.n_prefill < swapped.n_image);
}

#[test]
fn a_growing_context_keeps_its_state() {
    for kv_type in [KvType::F16, KvType::Q8_0, KvType::F32] {
        for flash_attn in [true, false] {
            if kv_type == KvType::Q8_0 && !flash_attn {
                continue; // llama.cpp requires flash attention for quantized values
            }
            let engine = fresh_engine(EngineOptions {
                kv_type,
                flash_attn,
                ..options()
            });
            let mut session = engine.session();
            let short = Request {
                n_predict: 1,
                ..ask(&[50], "Describe this image briefly.")
            };
            session.answer(&short, &mut ()).unwrap();
            let n_ctx = session.n_ctx();
            let long = Request {
                n_predict: 1500,
                ..ask(&[50], "Describe this image in detail.")
            };
            let answer = session.answer(&long, &mut ()).unwrap();
            assert!(session.n_ctx() > n_ctx, "{} then {n_ctx}", session.n_ctx());
            assert!(answer.timings.n_reused > answer.n_image);
            let fresh = engine.answer(&long, &mut ()).unwrap();
            assert_eq!(answer.ids, fresh.ids, "{kv_type:?} {flash_attn}");
        }
    }
}

#[test]
fn a_failed_request_leaves_the_session_unchanged() {
    let mut session = engine().session();
    let good = ask(&[60], "Describe this image briefly.");
    assert_same(&mut session, &good);
    let n_past = session.n_past();
    let mut no_file = good.clone();
    no_file.images = vec![Picture::File("no/such/picture.png".into())];
    let error = session.answer(&no_file, &mut ()).unwrap_err();
    assert!(matches!(error, EngineError::Image(_)), "{error}");
    let too_long = ask(&[61], &"very ".repeat(4000));
    let error = session.answer(&too_long, &mut ()).unwrap_err();
    assert!(
        matches!(error, EngineError::PromptTooLong { .. }),
        "{error}"
    );
    assert_eq!(session.n_past(), n_past);
    let again = assert_same(&mut session, &good);
    assert_eq!(again.timings.n_prefill, 1);
}

#[test]
fn a_prompt_beyond_a_fixed_context_is_refused_before_computation() {
    let engine = fresh_engine(EngineOptions {
        n_ctx: Some(300),
        ..options()
    });
    let mut session = engine.session();
    let answer = session.answer(&ask(&[62], "Describe this image briefly."), &mut ());
    assert!(answer.unwrap().n_prompt < 300);
    let error = session
        .answer(&ask(&[62, 63], "What differs?"), &mut ())
        .unwrap_err();
    assert!(
        matches!(error, EngineError::PromptTooLong { n_ctx: 300, .. }),
        "{error}"
    );
}

#[test]
fn a_reserved_session_has_its_context_and_gives_the_same_answers() {
    let (engine, reserved) = (fresh_engine(options()), ask(&[71], "?"));
    let mut session = engine.session();
    session.reserve(&reserved).unwrap();
    let n_ctx = session.n_ctx();
    assert!(n_ctx > 0 && session.n_past() == 0 && !engine.is_adapter_loaded());
    let first = assert_same(&mut session, &ask(&[71], "Describe this image briefly."));
    assert_eq!(session.n_ctx(), n_ctx);
    assert_eq!((first.timings.n_reused, first.timings.n_images), (0, 1));
    let second = assert_same(&mut session, &ask(&[71], "List the objects in the image."));
    assert!(first.timings.load > 0.0 && first.timings.context > 0.0);
    assert_eq!((second.timings.load, second.timings.n_images), (0.0, 0));

    let n_past = session.n_past();
    let larger = Request {
        n_predict: n_ctx,
        ..reserved
    };
    session.reserve(&larger).unwrap();
    assert!(session.n_ctx() > n_ctx && session.n_past() == n_past);
    let again = assert_same(&mut session, &ask(&[71], "List the objects in the image."));
    assert_eq!(again.timings.n_prefill, 1);
}

#[test]
fn a_session_reserved_for_other_requests_still_answers() {
    let engine = fresh_engine(options());
    let mut session = engine.session();
    let hello = Request {
        n_predict: 1,
        ..ask(&[], "Hello!")
    };
    session.reserve(&hello).unwrap();
    let n_ctx = session.n_ctx();
    assert_same(&mut session, &hello);
    assert!(!engine.is_adapter_loaded());
    let long = Request {
        n_predict: n_ctx,
        ..ask(&[72], "Describe this image briefly.")
    };
    assert_same(&mut session, &long);
    assert!(session.n_ctx() > n_ctx);
    let beams = Request {
        beams: 3,
        ..ask(&[72], "List the objects in the image.")
    };
    let mut session = engine.session();
    session.reserve(&beams).unwrap();
    let n_ctx = session.n_ctx();
    assert_same(&mut session, &beams);
    assert_eq!(session.n_ctx(), n_ctx);
}

#[test]
fn impossible_requests_are_not_reserved() {
    let engine = fresh_engine(EngineOptions {
        max_memory: Some(40_000_000), // for text alone
        ..options()
    });
    let mut session = engine.session();
    let error = session.reserve(&ask(&[73], "?")).unwrap_err();
    assert!(matches!(error, EngineError::Memory { .. }), "{error}");
    let error = session.reserve(&ask(&[], "")).unwrap_err();
    assert!(matches!(error, EngineError::Prompt(_)), "{error}");
    assert_eq!(session.n_ctx(), 0);
    session.reserve(&ask(&[], "Hello!")).unwrap();
    assert!(session.n_ctx() > 0);
}

#[test]
fn conversations_without_pictures_never_load_the_adapter() {
    let engine = fresh_engine(options());
    let mut session = engine.session();
    let hello = ask(&[], "Hello! Who are you?");
    let answer = session.answer(&hello, &mut ()).unwrap();
    session
        .answer(&next_turn(hello, &answer, "What can you do?"), &mut ())
        .unwrap();
    assert!(!engine.is_adapter_loaded());
    let (text, pictures) = (engine.memory_need_for(512, false), engine.memory_need(512));
    assert_eq!((text.plora, text.vision), (0, 0));
    assert!(pictures.plora > 0 && pictures.vision > 0 && pictures.work >= text.work);
    session
        .answer(&ask(&[70], "Describe this image briefly."), &mut ())
        .unwrap();
    assert!(engine.is_adapter_loaded());
}

#[test]
fn a_picture_is_encoded_once_for_all_questions() {
    let engine = fresh_engine(options());
    let counts = |answer: Answer| (answer.timings.n_images, answer.timings.n_images_reused);
    let first = engine
        .answer(&ask(&[80, 80, 81], "What differs?"), &mut ())
        .unwrap();
    assert_eq!(counts(first), (2, 1));
    let second = engine
        .answer(&ask(&[81], "Describe this image briefly."), &mut ())
        .unwrap();
    assert_eq!(counts(second), (0, 1));
}

#[test]
fn a_cleared_session_starts_from_scratch() {
    let mut session = engine().session();
    let request = Task::Count.case(5).request(
        &engine().container().info().prompt,
        engine().preprocessor().image_size() as usize,
    );
    let request = request.unwrap();
    assert_same(&mut session, &request);
    session.clear();
    assert_eq!(session.n_past(), 0);
    assert_eq!(assert_same(&mut session, &request).timings.n_reused, 0);
}
