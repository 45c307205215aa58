import Glibc
import TestSupport

/// `swift run -c release Benchmarks [NAME...] [--json] [--minutes N] [--memory MB] [--agent MB] [--apply DATA-FOLDER]`: figures of this
/// machine, on the built product. Without a name those run that take no more than a few minutes together.
let words = Array(CommandLine.arguments.dropFirst())
if words.first == "agent", words.count == 3, let megabytes = Int(words[1]), let seconds = Int(words[2]) {
    actAsAgent(megabytes: megabytes, seconds: seconds)
}
let valued = ["--minutes", "--memory", "--agent", "--apply"]
func value(of option: String) -> String? {
    words.firstIndex(of: option).flatMap { $0 + 1 < words.count ? words[$0 + 1] : nil }
}
let minutes = value(of: "--minutes").flatMap { Int($0) } ?? 1
let names = words.indices.filter { !words[$0].hasPrefix("-") && ($0 == 0 || !valued.contains(words[$0 - 1])) }.map {
    words[$0]
}
let table = Table(json: words.contains("--json"))
let benchmarks: [(name: String, isDefault: Bool, run: (Table) throws -> Void)] = [
    ("http", true, benchmarkHTTP), ("dispatch", true, benchmarkDispatch), ("recovery", true, benchmarkRecovery),
    ("logs", true, benchmarkLogs), ("cancel", true, benchmarkCancel), ("scale", false, benchmarkScale),
    (
        "capacity", false,
        {
            try benchmarkCapacity(
                $0, memoryMB: value(of: "--memory").flatMap { Int($0) },
                agentMB: value(of: "--agent").flatMap { Int($0) } ?? 250, applyTo: value(of: "--apply"))
        }
    ),
    ("pulse", false, benchmarkPulse), ("chaos", false, { try benchmarkChaos($0, minutes: minutes) }),
    ("soak", false, { try benchmarkSoak($0, minutes: minutes) }),
]
for name in names where !benchmarks.contains(where: { $0.name == name }) {
    print("unknown benchmark \(name); there are: \(benchmarks.map(\.name).joined(separator: ", "))")
    exit(2)
}
for option in words where option.hasPrefix("-") && option != "--json" && !valued.contains(option) {
    print("unknown option \(option); there are: --json, \(valued.joined(separator: ", "))")
    exit(2)
}
for benchmark in benchmarks where names.isEmpty ? benchmark.isDefault : names.contains(benchmark.name) {
    try benchmark.run(table)
}
table.finish()
