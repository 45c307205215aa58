import FoundationEssentials
import Supervision
import TestSupport
import Testing

/// Whoever is owed a word about a task's end gets it, once it can be delivered, also after a crash.
@Suite(.timeLimit(.minutes(5)))
struct NoticeTests {
    private static let secret = "a secret of the receiver"

    private func node(_ receiver: TestReceiver) throws -> TestNode {
        let node = try TestNode(
            agent: "cat > /dev/null; echo TASK_COMPLETE",
            settings:
                #""notify": {"url": "http://127.0.0.1:\#(receiver.port)/all", "secret": "\#(Self.secret)", "allowed_hosts": ["127.0.0.1"]}"#
        )
        try node.makeRepository("o/r")
        try node.start()
        return node
    }

    private func signature(_ body: [UInt8]) -> String {
        let code = SHA256.hmac(body, key: Array(Self.secret.utf8))
        return "sha256=" + code.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    @Test func theRecordIsPostedSignedAndTriedAgain() throws {
        let receiver = try TestReceiver()
        let node = try node(receiver)
        #expect(
            try node.dispatch("told", more: #""callback_url": "http://127.0.0.1:\#(receiver.port)/own?x=1""#).status
                == 202)
        let failed = try receiver.receive(answering: 500)
        #expect(failed.line == "POST /own?x=1 HTTP/1.1")
        let own = try receiver.receive(answering: 204)
        #expect(own.line == failed.line && own.body == failed.body)
        #expect(own.headers["x-aidevops-signature"] == signature(own.body))
        #expect(own.headers["content-type"] == "application/json" && own.headers["x-aidevops-task"] == "told")
        let text = String(decoding: own.body, as: UTF8.self)
        #expect(text.contains(#""state":"succeeded""#) && text.contains(#""task_id":"told""#))
        let all = try receiver.receive(answering: 200)
        #expect(all.line == "POST /all HTTP/1.1")
        #expect(
            try TestEnvironment.eventually {
                try node.worker("told").components(separatedBy: "delivered_at").count == 3
            })
        #expect(try node.worker("told").contains(#""attempts":2"#))
    }

    @Test func whatIsOwedSurvivesACrash() throws {
        let receiver = try TestReceiver()
        let node = try node(receiver)
        #expect(try node.dispatch("owed").status == 202)
        _ = try receiver.receive(answering: 503)
        #expect(try TestEnvironment.eventually { try node.worker("owed").contains("answered with status 503") })
        node.kill()
        try node.start()
        let body = try receiver.receive(answering: 200).body
        #expect(String(decoding: body, as: UTF8.self).contains(#""task_id":"owed""#))
        #expect(try TestEnvironment.eventually { try node.worker("owed").contains("delivered_at") })
    }

    @Test(arguments: [
        ("ftp://127.0.0.1/", 400), ("http://user@127.0.0.1/", 400), ("http://127.0.0.1@evil.org/", 400), ("x", 400),
        ("http://evil.org/", 403), ("http://127.0.0.1.evil.org/", 403), ("http://evil.org#127.0.0.1", 403),
    ])
    func aCallbackGoesOnlyWhereItMay(url: String, status: Int) throws {
        let node = try node(try TestReceiver())
        let answer = try node.dispatch("refused", more: #""callback_url": "\#(url)""#)
        #expect(answer.status == status && answer.body.contains(#""field":"callback_url""#), "\(answer)")
    }
}

extension String {
    fileprivate func components(separatedBy separator: String) -> [Substring] {
        split(separator: separator, omittingEmptySubsequences: false)
    }
}
