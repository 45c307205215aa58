import Glibc

/// A system call that failed: what was tried, on what, and the errno.
package struct SystemError: Error, CustomStringConvertible, Equatable {
    package let operation: String
    package let errno: Int32

    package init(_ operation: String, errno: Int32) {
        self.operation = operation
        self.errno = errno
    }

    package var description: String { "\(operation): \(SystemError.message(errno))" }

    /// The C library's sentence for an errno.
    package static func message(_ code: Int32) -> String {
        guard let text = unsafe strerror(code) else { return "error \(code)" }
        return unsafe String(cString: text)
    }
}

/// Turns the C shims' convention (a value, or the negative errno) into a value or a thrown error.
@discardableResult
package func check<Value: SignedInteger>(_ result: Value, _ operation: @autoclosure () -> String) throws(SystemError)
    -> Value
{
    guard result < 0 else { return result }
    throw SystemError(operation(), errno: Int32(-result))
}

/// Turns the C library's convention (-1 and errno) into a value or a thrown error, and repeats calls that a signal broke off.
@discardableResult
package func checkErrno<Value: SignedInteger>(_ operation: @autoclosure () -> String, _ call: () -> Value)
    throws(SystemError) -> Value
{
    while true {
        let result = call()
        guard result < 0 else { return result }
        let code = errno
        guard code == EINTR else { throw SystemError(operation(), errno: code) }
    }
}
