import Glibc
import Supervision

/// A failure that is told in one sentence; the exit code is 1.
struct CommandFailure: Error {
    let message: String
}

private func run(_ words: [String]) -> Int32 {
    guard let name = words.first else {
        Terminal.out(SubCommand.overview)
        return 0
    }
    if ["--help", "-h", "help"].contains(name) {
        Terminal.out(SubCommand.overview)
        return 0
    }
    if ["--version", "version"].contains(name) {
        Terminal.out("aidevops-worker \(Version.current)\n")
        return 0
    }
    guard let command = SubCommand.all.first(where: { $0.name == name }) else {
        Terminal.error(Arguments.unknown("command", name, among: SubCommand.all.map(\.name)))
        return 2
    }
    if words.dropFirst().prefix(while: { $0 != "--" }).contains(where: { $0 == "--help" || $0 == "-h" }) {
        Terminal.out(command.help)
        return 0
    }
    do {
        return try command.run(Arguments(Array(words.dropFirst()), options: command.options))
    } catch let error as UsageError {
        Terminal.error("\(error.message) (see: aidevops-worker \(name) --help)")
        return 2
    } catch let error as CommandFailure {
        Terminal.error(error.message)
        return 1
    } catch {
        Terminal.error("\(error)")
        return 1
    }
}

// The worker's init must stay small: it comes before everything that Foundation is needed for.
switch CommandLine.arguments.dropFirst().first {
case WorkerInit.argument: exit(WorkerInit.main())
case ChangesReader.argument: exit(ChangesReader.main())
default: break
}
exit(run(Array(CommandLine.arguments.dropFirst())))
